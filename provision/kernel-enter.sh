#!/bin/sh
# Enters a root file system and runs one phase of a kernel build in it. The host calls it as the root of namespaces made
# for it (mounts and processes), so that all that is mounted and started here ends with them.
#
#   kernel-enter.sh ROOT BUILD CCACHE PHASE [JOBS]     CCACHE: a folder, or - for none
set -eu
root=$1 build=$2 ccache=$3
shift 3

mkdir -p "$root/build" "$root/ccache"
mount --rbind /dev "$root/dev"
# Not everywhere may a namespace have a proc of its own; then the host's does.
mount -t proc proc "$root/proc" 2>/dev/null || mount --rbind /proc "$root/proc"
mount --bind "$build" "$root/build"
export HOME=/root PATH=/usr/sbin:/usr/bin:/sbin:/bin DEBIAN_FRONTEND=noninteractive
if [ "$ccache" != - ]; then
  mount --bind "$ccache" "$root/ccache"
  export CCACHE_DIR=/ccache
fi
# What downloads asks for names where this host does.
cat /etc/resolv.conf >"$root/etc/resolv.conf" 2>/dev/null || true
exec chroot "$root" sh /build/provision/kernel-build.sh "$@"
