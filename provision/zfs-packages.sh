#!/bin/sh
# Brings OpenZFS to a Debian or Ubuntu machine that was not built by zfsdev (a cloud image under Lima): the tools, and
# a kernel module that really loads. Runs at each boot, and does nothing when both are there.
set -eu

ETC=${ZFSDEV_ETC:-/etc}

die() {
  printf 'zfs-packages.sh: %s\n' "$*" >&2
  exit 1
}

[ "$(id -u)" = 0 ] || die "must run as root"
# shellcheck source=/dev/null
[ ! -r "$ETC/os-release" ] || . "$ETC/os-release"
kernel=$(uname -r)
listed=no

# Another apt may still be at work while the machine boots for the first time.
apt() {
  DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3 -q -y "$@"
}

# Fetches the package lists, once, and only if something has to be installed.
install_packages() {
  if [ "$listed" = no ]; then
    apt update || die "the package lists can't be fetched: is there a network?"
    listed=yes
  fi
  apt install --no-install-recommends "$@" || die "apt-get could not install $*"
  # The downloaded archives take space that no template counts, and are not needed again.
  apt clean
}

has_tools() { command -v zpool >/dev/null && command -v zfs >/dev/null; }
has_module() { modprobe zfs 2>/dev/null; }
is_offered() { apt-cache show "$1" >/dev/null 2>&1; }

# Debian carries ZFS in contrib, which its cloud images leave out.
enable_contrib() {
  for file in "$ETC/apt/sources.list.d/debian.sources" "$ETC/apt/mirrors/debian.sources"; do
    [ -f "$file" ] || continue
    sed -i '/^Components:/{/contrib/!s/$/ contrib/}' "$file"
  done
  if [ -f "$ETC/apt/sources.list" ]; then
    sed -i '/^deb .* main/{/contrib/!s/$/ contrib/}' "$ETC/apt/sources.list"
  fi
  listed=no
}

case "${ID:-unknown}" in
  ubuntu)
    if ! has_module; then
      install_packages kmod
      # The module is part of Ubuntu's kernel packages; minimal images leave one of them out.
      for package in "linux-modules-$kernel" "linux-modules-extra-$kernel" "linux-modules-zfs-$kernel"; do
        has_module && break
        if is_offered "$package"; then install_packages "$package"; fi
      done
    fi
    has_tools || install_packages zfsutils-linux
    ;;
  debian)
    if ! has_tools || ! has_module; then enable_contrib; fi
    if ! has_module; then
      install_packages kmod
      is_offered "linux-headers-$kernel" ||
        die "Debian no longer offers linux-headers-$kernel: apt-get dist-upgrade, restart the machine, and try again"
      install_packages "linux-headers-$kernel" zfs-dkms
    fi
    has_tools || install_packages zfsutils-linux
    ;;
  *)
    if ! has_tools || ! has_module; then die "knows Debian and Ubuntu, not ${ID:-this system}"; fi
    ;;
esac

has_tools || die "zpool and zfs are not there, although their package is installed"
modprobe zfs || die "the zfs module does not load into the kernel $kernel"
