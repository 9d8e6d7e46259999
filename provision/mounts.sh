#!/bin/sh
# Mounts the folders of the host that this machine was given.
#
#   mounts.sh start   mount those that are not mounted yet; a mount point that is missing is made
#   mounts.sh stop    unmount them, the last one first
#
# /etc/zfsdev/mounts (no file: nothing to do) has a line for each, with tabs between its words: 9p or virtiofs, the tag by
# which the host offers it, the mount point, and ro or rw.
set -eu

MOUNTS=${ZFSDEV_MOUNTS:-/etc/zfsdev/mounts}
# As much as the kernel asks for at once over virtio, 125 pages; what is more is cut down to that.
LARGEST=512000

die() {
  printf 'mounts.sh: %s\n' "$*" >&2
  exit 1
}

tab=$(printf '\t')

# Reads the next line into $type, $tag, $point and $mode.
next() {
  type=''
  IFS=$tab read -r type tag point mode || [ -n "$type" ]
}

mount_share() {
  options=$mode
  case $type in
    9p)
      modules='9p 9pnet_virtio'
      options="$options,trans=virtio,version=9p2000.L,msize=$LARGEST"
      ;;
    virtiofs) modules=virtiofs ;;
    *) die "$MOUNTS: $type is neither 9p nor virtiofs" ;;
  esac
  case $mode in ro | rw) ;; *) die "$MOUNTS: $mode is neither ro nor rw" ;; esac
  case $point in /*) ;; *) die "$MOUNTS: $point is no absolute path" ;; esac
  if mountpoint -q "$point"; then return 0; fi
  # The word splitting is meant: one word a module.
  # shellcheck disable=SC2086
  words=$(modprobe -a $modules 2>&1) || die "the kernel $(uname -r) can't mount $type: $words"
  words=$(mkdir -p "$point" 2>&1) || die "$tag can't be mounted: $words"
  # -c: a tag is no path, although there may be a file of its name.
  words=$(mount -c -t "$type" -o "$options" "$tag" "$point" 2>&1) || die "$tag can't be mounted on $point: $words"
}

start() {
  while next; do
    [ -z "$type" ] || mount_share
  done
}

# The lines after the next one first: what was mounted last may lie in what was mounted before.
stop() {
  next || return 0
  set -- "$point"
  stop
  if mountpoint -q "$1"; then umount "$1" || umount --lazy "$1"; fi
}

[ -f "$MOUNTS" ] || exit 0
case ${1:-start} in
  start) start <"$MOUNTS" ;;
  stop) stop <"$MOUNTS" ;;
  *) die "usage: mounts.sh [start|stop]" ;;
esac
