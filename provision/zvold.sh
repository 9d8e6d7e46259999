#!/bin/sh
# Brings the volume manager to a machine that boots without zfsdev's seed: one of Lima's, or of somebody's cloud image.
#
#   zvold.sh start DIGEST            start what is installed; ends with 3 if that is not of this digest
#   zvold.sh missing                 print the packages that it takes and that are not there
#   zvold.sh packages NAME...        install packages of the distribution
#   zvold.sh install FOLDER DIGEST   put what lies in FOLDER in place, and start it
set -eu

LIBRARY=${ZFSDEV_LIBRARY:-/usr/lib/zfsdev}
UNITS=${ZFSDEV_UNITS:-/etc/systemd/system}
CONF=${ZFSDEV_POOL_CONF:-/etc/zfsdev/pool.conf}
LOCK=${ZFSDEV_ZVOLD_LOCK:-/run/zfsdev-zvold.lock}
# The one that the unit names.
NODE=${ZFSDEV_NODE:-/usr/bin/node}
OLDEST_NODE=18
SOCKET=zfsdev-zvold.socket
SERVICE=zfsdev-zvold.service

die() {
  printf 'zvold.sh: %s\n' "$*" >&2
  exit 1
}

# A unit whose conditions don't hold is skipped, which systemctl calls a success.
start_socket() {
  [ -f "$CONF" ] || die "this machine has no pool: there is no $CONF"
  systemctl is-active --quiet "$SOCKET" || systemctl start "$SOCKET" || die "$SOCKET does not start"
  systemctl is-active --quiet "$SOCKET" || die "$SOCKET was started, and is not there"
}

start() {
  installed=''
  if [ -f "$LIBRARY/zvold.digest" ]; then read -r installed <"$LIBRARY/zvold.digest" || true; fi
  [ "$installed" = "$1" ] || exit 3
  start_socket
}

missing() {
  [ -x "$NODE" ] || echo nodejs
  command -v qemu-img >/dev/null || echo qemu-utils
}

# Another apt may still be at work while the machine boots for the first time.
apt() {
  DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3 -q -y "$@"
}

packages() {
  command -v apt-get >/dev/null || die "knows Debian and Ubuntu; install by hand what gives $*"
  apt update || die "the package lists can't be fetched: is there a network?"
  apt install --no-install-recommends "$@" || die "apt-get could not install $*"
  # The downloaded archives take space that no template counts, and are not needed again.
  apt clean
}

# Whoever reads a file meanwhile finds the one before or the new one, whole.
put() {
  install -m 0644 "$1" "$2.new"
  mv "$2.new" "$2"
}

install_all() {
  folder=$1
  [ -x "$NODE" ] || die "there is no $NODE"
  "$NODE" -e "process.exit(Number.parseInt(process.versions.node) < $OLDEST_NODE ? 1 : 0)" ||
    die "zvold runs on Node.js $OLDEST_NODE or later, and $NODE is $("$NODE" --version)"
  exec 9>"$LOCK"
  flock 9
  # From here on, until all is in place, nothing counts as installed.
  rm -f "$LIBRARY/zvold.digest"
  mkdir -p "$LIBRARY" "$UNITS/multi-user.target.wants"
  put "$folder/zvold.cjs" "$LIBRARY/zvold.cjs"
  put "$folder/zvold.sh" "$LIBRARY/zvold.sh"
  for unit in "$SOCKET" "$SERVICE"; do put "$folder/$unit" "$UNITS/$unit"; done
  ln -sf "$UNITS/$SOCKET" "$UNITS/multi-user.target.wants/$SOCKET"
  systemctl daemon-reload
  # A daemon of before ends what it is at; the next client starts the new one.
  systemctl stop "$SOCKET" "$SERVICE"
  start_socket
  printf '%s\n' "$2" >"$LIBRARY/zvold.digest.new"
  mv "$LIBRARY/zvold.digest.new" "$LIBRARY/zvold.digest"
}

case ${1:-} in
  start) start "${2:?a digest}" ;;
  missing) missing ;;
  packages)
    shift
    packages "$@"
    ;;
  install) install_all "${2:?a folder}" "${3:?a digest}" ;;
  *) die "usage: zvold.sh start DIGEST | missing | packages NAME... | install FOLDER DIGEST" ;;
esac
