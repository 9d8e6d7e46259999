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
# What downloads asks for names where this host does.
cat /etc/resolv.conf >"$root/etc/resolv.conf" 2>/dev/null || true
set -- chroot "$root" sh /build/provision/kernel-build.sh "$@"
if [ "$ccache" != - ]; then
  mount --bind "$ccache" "$root/ccache"
  # What a compilation depends on is known from the compiler itself: to ask the preprocessor first takes a third longer.
  set -- CCACHE_DIR=/ccache CCACHE_DEPEND=1 "$@"
fi
# Who builds kernels has variables that a kernel's make heeds (CROSS_COMPILE, KBUILD_OUTPUT, LLVM ...), and folders that are not
# in there (TMPDIR). All that a build needs of them is the way to a network.
for name in http_proxy https_proxy no_proxy all_proxy HTTP_PROXY HTTPS_PROXY NO_PROXY ALL_PROXY; do
  eval "value=\${$name-}"
  # shellcheck disable=SC2154
  [ -z "$value" ] || set -- "$name=$value" "$@"
done
exec env -i HOME=/root PATH=/usr/sbin:/usr/bin:/sbin:/bin DEBIAN_FRONTEND=noninteractive "$@"
