#!/bin/sh
# Brings up the test pool: the first time it is made on sparse files behind loop devices, ever after it is imported.
#
#   pool.sh start     make or import the pool, print its health
#   pool.sh stop      export it, or at least write everything out
#
# Settings come from /etc/zfsdev/pool.conf (no file: no pool, and nothing to do). The pool is made in a folder that gets
# its real name only when the pool is whole and on disk. So the folder's name is the truth: if it is there, data may be
# in it, and nothing here ever creates anything over it.
set -eu

CONF=${ZFSDEV_POOL_CONF:-/etc/zfsdev/pool.conf}
DISKS=${ZFSDEV_POOL_DISKS:-/zfs-disks}
# Written when a forked machine takes its own identity.
FORKED=${ZFSDEV_POOL_FORKED:-/etc/zfsdev/forked}
PARAMETERS=/sys/module/zfs/parameters

die() {
  printf 'pool.sh: %s\n' "$*" >&2
  exit 1
}

read_settings() {
  POOL_NAME='' POOL_LAYOUT=mirror POOL_FILE_COUNT=2 POOL_FILE_SIZE=268435456
  POOL_ASHIFT=12 POOL_AUTOTRIM=on POOL_PROPERTIES=''
  # shellcheck source=/dev/null
  . "$CONF"
  [ -n "$POOL_NAME" ] || die "$CONF does not set POOL_NAME"
  case $POOL_LAYOUT in
    mirror | raidz | raidz1 | raidz2 | raidz3) vdev=$POOL_LAYOUT ;;
    stripe) vdev='' ;;
    *) die "$CONF: POOL_LAYOUT=$POOL_LAYOUT is none of mirror, stripe, raidz1, raidz2, raidz3" ;;
  esac
}

# Prints the loop device of a file; attaches it first if it has none yet.
attach() {
  device=$(losetup --noheadings --output NAME --associated "$1" | head -n 1)
  [ -n "$device" ] || device=$(losetup --find --show "$1") || die "no loop device for $1"
  printf '%s\n' "$device"
}

# Attaches disk1.img ... of a folder, in order, and leaves the device names in $devices.
attach_all() {
  devices='' number=1
  while [ "$number" -le "$POOL_FILE_COUNT" ]; do
    [ -f "$1/disk$number.img" ] || die "$1/disk$number.img is missing"
    device=$(attach "$1/disk$number.img")
    devices="$devices $device"
    number=$((number + 1))
  done
}

# What a power cut in the middle of create_pool left behind: no pool was ever handed to anybody from there.
drop_unfinished() {
  [ -d "$DISKS.new" ] || return 0
  for file in "$DISKS.new"/*.img; do
    [ -f "$file" ] || continue
    losetup --noheadings --output NAME --associated "$file" | while read -r device; do
      losetup --detach "$device"
    done
  done
  rm -rf "$DISKS.new"
}

create_pool() {
  drop_unfinished
  mkdir -m 0700 "$DISKS.new"
  number=1
  while [ "$number" -le "$POOL_FILE_COUNT" ]; do
    truncate -s "$POOL_FILE_SIZE" "$DISKS.new/disk$number.img"
    number=$((number + 1))
  done
  attach_all "$DISKS.new"
  set --
  for property in $POOL_PROPERTIES; do
    set -- "$@" -O "$property"
  done
  # The word splitting of $vdev and $devices is meant: they hold zero or more plain words.
  # shellcheck disable=SC2086
  zpool create -o cachefile=none -o ashift="$POOL_ASHIFT" -o autotrim="$POOL_AUTOTRIM" "$@" \
    "$POOL_NAME" $vdev $devices || die "zpool create failed"
  zpool sync "$POOL_NAME"
  sync -f "$DISKS.new"
  mv "$DISKS.new" "$DISKS"
  sync -f "$(dirname "$DISKS")"
}

import_pool() {
  attach_all "$DISKS"
  set --
  for device in $devices; do
    set -- "$@" -d "$device"
  done
  # A machine forked from saved memory has another host id than the one its pool was made under, and after a power cut
  # ZFS takes that for somebody else's pool. Its files are on this machine's own disk, so nobody else can have it.
  if [ -f "$FORKED" ]; then set -- "$@" -f; fi
  zpool import -o cachefile=none "$@" "$POOL_NAME" || die "zpool import of $POOL_NAME from $DISKS failed"
  rm -f "$FORKED"
}

# By default a pool with autotrim gives back what was freed only 32 transaction groups later, and nothing smaller than
# 32 KiB: minutes on a machine that idles. And a manual trim can't be relied on: it leaves out the first 4 MiB of every
# metaslab but the first (OpenZFS 2.3 resumes behind a label that it counted twice), a quarter of one on a small device.
trim_soon() {
  for setting in zfs_trim_txg_batch=1 zfs_trim_extent_bytes_min=4096; do
    file=$PARAMETERS/${setting%%=*}
    # Another version of the module may not have it; the pool works all the same.
    if [ -w "$file" ]; then printf '%s\n' "${setting#*=}" >"$file"; fi
  done
}

start() {
  [ -f "$CONF" ] || { echo none; exit 0; }
  read_settings
  # Waits until a module that is being loaded by somebody else is there, too.
  modprobe -a zfs loop || die "the zfs module cannot be loaded"
  trim_soon
  if health=$(zpool list -H -o health "$POOL_NAME" 2>/dev/null); then
    [ ! -d "$DISKS.new" ] || die "$POOL_NAME is imported but unfinished: zpool export $POOL_NAME, then start again"
    printf '%s\n' "$health"
    exit 0
  fi
  if [ -d "$DISKS" ]; then import_pool; else create_pool; fi
  zpool list -H -o health "$POOL_NAME"
}

stop() {
  [ -f "$CONF" ] || exit 0
  read_settings
  zpool list -H -o name "$POOL_NAME" >/dev/null 2>&1 || exit 0
  # A data set that is still in use makes the export fail. The data must be safe all the same.
  zpool export "$POOL_NAME" || zpool sync "$POOL_NAME"
}

case ${1:-start} in
  start) start ;;
  stop) stop ;;
  *) die "usage: pool.sh [start|stop]" ;;
esac
