#!/bin/sh
# Installs what a kernel build needs, from the distribution's own packages. Runs at every boot under Lima: when all is
# there already it is done in a moment and needs no network.
set -eu

packages='bc bison build-essential busybox-static ca-certificates cpio curl dwarves flex git kmod libelf-dev libssl-dev python3 rsync
  xz-utils zstd'

die() {
  printf 'build-tools.sh: %s\n' "$*" >&2
  exit 1
}

# Prints the packages that are not installed, each on a line.
missing() {
  for package in $packages; do
    # dpkg-query fails for a package it has never heard of, which is just another way of not being installed.
    status=$(dpkg-query --show --showformat='${db:Status-Status}' "$package" 2>/dev/null) || status=none
    [ "$status" = installed ] || printf '%s\n' "$package"
  done
}

[ "$(id -u)" -eq 0 ] || die 'must run as root'
wanted=$(missing)
[ -n "$wanted" ] || exit 0

export DEBIAN_FRONTEND=noninteractive
# Another apt may still be at work while the machine boots for the first time.
set -- -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3 -y -q
apt-get "$@" update || die 'the package lists could not be fetched'
# The word splitting is meant: one word a package.
# shellcheck disable=SC2086
apt-get "$@" install --no-install-recommends $wanted || die 'the build tools could not be installed'
# The downloaded archives take space that no template counts, and are not needed again.
apt-get clean
