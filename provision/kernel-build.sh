#!/bin/sh
# Builds a kernel, and OpenZFS for it, phase by phase, in a place made for it: a machine, or a root file system that
# zfsdev has entered. The host calls
#
#   kernel-build.sh PHASE     preflight, source, config, make, modules, zfs, initrd, archive, in this order
#
# and nothing else differs between the two. A phase that is done leaves done/PHASE, and is then done in a moment, so that a
# build goes on where it was cut off. Everything lies in one folder ($ZFSDEV_BUILD, else /build):
#
#   settings.sh  in/         what is asked for: SOURCE, CONFIG ...; the files that came from the host
#   src/ zfs/ stage/ pack/   what is made on the way; each is removed as soon as nothing needs it any more
#   out/ done/               the archive; the stamps, and what a phase tells later ones
#
# Lines that the host reads: `@ KEY VALUE` is a fact, `! TEXT` says why it failed, all others are the log.
# shellcheck source-path=SCRIPTDIR
set -eu

BUILD=${ZFSDEV_BUILD:-/build}
PHASE=${1:-}
here=$(dirname "$0")
# shellcheck source=/dev/null
. "$BUILD/settings.sh"
# shellcheck source=kernel/lib.sh
. "$here/kernel/lib.sh"
# shellcheck source=kernel/source.sh
. "$here/kernel/source.sh"
# shellcheck source=kernel/config.sh
. "$here/kernel/config.sh"
# shellcheck source=kernel/pack.sh
. "$here/kernel/pack.sh"

# --- preflight: tools, memory, disk ----------------------------------------------------------------------------------

do_preflight() {
  # A root file system that was made for this has them from the start.
  if [ "$TOOLS" = install ]; then
    sh "$here/build-tools.sh" || die 'the build tools could not be installed: is there a network?'
  fi
  free=$(df -Pk "$BUILD" | awk 'NR == 2 { print $4 }')
  [ "$free" -ge "$NEEDED_KIB" ] ||
    die "not enough space to build in: $((free / 1024)) MiB are free, $((NEEDED_KIB / 1024)) MiB are needed"
  memory=$(awk '$1 == "MemAvailable:" { print $2 }' /proc/meminfo)
  # A compiler takes a few hundred MiB at its worst; the linker of a large kernel a gigabyte, once.
  most=$((memory / 400000))
  [ "$most" -ge 1 ] || most=1
  # shellcheck disable=SC2153
  jobs=$JOBS
  if [ "$jobs" -gt "$most" ]; then
    jobs=$most
    fact notice "$((memory / 1024)) MiB of memory are free: $jobs at a time instead of $JOBS"
  fi
  put jobs "$jobs"
  fact jobs "$jobs"
  put compiler "$(gcc --version | head -n 1)"
  fact compiler "$(get compiler)"
}

# --- make ------------------------------------------------------------------------------------------------------------

do_make() {
  # Without modules there is no such target.
  targets=$KERNEL_IMAGE
  if is_set MODULES; then targets="$targets modules"; fi
  # The word splitting is meant: one word a target.
  # shellcheck disable=SC2086
  kernel_make -j "$(get jobs)" $targets || die 'the kernel does not compile'
}

# --- modules: what a machine boots with and loads ----------------------------------------------------------------------

do_modules() {
  release=$(get release)
  rm -rf "$BUILD/stage"
  mkdir -p "$BUILD/stage/lib/modules/$release"
  if is_set MODULES; then
    # depmod comes once, when OpenZFS is there too.
    kernel_make -j "$(get jobs)" INSTALL_MOD_PATH="$BUILD/stage" INSTALL_MOD_STRIP=1 DEPMOD=true modules_install ||
      die 'the modules could not be installed'
  fi
  rm -f "$BUILD/stage/lib/modules/$release/build" "$BUILD/stage/lib/modules/$release/source"
  cp "$BUILD/src/arch/$SRCARCH/boot/${KERNEL_IMAGE##*/}" "$BUILD/stage/vmlinuz"
  cp "$BUILD/src/System.map" "$BUILD/stage/System.map"
  cp "$BUILD/src/.config" "$BUILD/stage/config"
  # Part of the kernel's own tools, and built by it only with an initrd inside the kernel.
  gcc -O1 -o "$BUILD/gen_init_cpio" "$BUILD/src/usr/gen_init_cpio.c" || die 'gen_init_cpio does not compile'
  # OpenZFS needs headers, tools and symbols, and no object of the kernel's.
  if is_set MODULES && [ "$ZFS" != none ]; then
    find "$BUILD/src" \( -name '*.o' -o -name '*.a' -o -name '*.ko' -o -name '*.mod.c' \) ! -path '*/scripts/*' \
      ! -path '*/tools/*' ! -path '*/arch/*/lib/*' ! -name module-common.o -delete
    rm -f "$BUILD/src/vmlinux" "$BUILD/src/vmlinux.unstripped"
  fi
  trim
}

# --- zfs -------------------------------------------------------------------------------------------------------------

do_zfs() {
  release=$(get release)
  if [ "$ZFS" != none ]; then
    is_set MODULES || die 'OpenZFS is a module, and this kernel takes none: CONFIG_MODULES is not set'
    fetch_zfs
    (
      cd "$BUILD/zfs"
      ./configure --with-config=kernel --with-linux="$BUILD/src" --with-linux-obj="$BUILD/src"
    ) || die "OpenZFS $(get zfs-version) can not be configured for this kernel: it may be too new for it"
    make -C "$BUILD/zfs" -j "$(get jobs)" || die "OpenZFS $(get zfs-version) does not compile for this kernel"
    target=$BUILD/stage/lib/modules/$release/updates/zfs
    mkdir -p "$target"
    find "$BUILD/zfs/module" -name '*.ko' -exec cp {} "$target/" \;
    [ -f "$target/zfs.ko" ] || die 'OpenZFS was compiled, and there is no zfs.ko'
    strip --strip-debug "$target"/*.ko
    measure_peak
    fact zfs "$(get zfs-version)"
  fi
  rm -rf "$BUILD/zfs" "$BUILD/src"
  if [ -f "$BUILD/stage/lib/modules/$release/modules.order" ]; then
    depmod -b "$BUILD/stage" -F "$BUILD/stage/System.map" "$release" || die 'depmod failed'
  fi
  trim
}

case $PHASE in
  preflight | source | config | make | modules | zfs | initrd | archive) ;;
  *) die "usage: kernel-build.sh preflight|source|config|make|modules|zfs|initrd|archive" ;;
esac
mkdir -p "$BUILD/done" "$BUILD/out"
if [ -f "$BUILD/done/$PHASE" ]; then
  # What it told the first time, for the host to know again.
  cat "$BUILD/done/$PHASE"
  exit 0
fi
: >"$BUILD/facts"
"do_$PHASE"
measure_peak
fact peak "$(get peak)"
sync -f "$BUILD"
mv "$BUILD/facts" "$BUILD/done/$PHASE"
