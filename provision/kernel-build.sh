#!/bin/sh
# Builds a kernel, and OpenZFS for it, phase by phase, in a place made for it: a machine, or a root file system that
# zfsdev has entered. The host calls
#
#   kernel-build.sh PHASE [JOBS]     preflight, source, config, make, modules, zfs, initrd, archive, in this order;
#                                    JOBS: others than settings.sh says, for a build that goes on
#
# and nothing else differs between the two. A phase that is done leaves done/PHASE, and is then done in a moment, so that a
# build goes on where it was cut off. Everything lies in one folder ($ZFSDEV_BUILD, else /build):
#
#   settings.sh  in/         what is asked for: SOURCE, CONFIG ...; the files that came from the host
#   src/ zfs/ stage/ pack/   what is made on the way; each is removed as soon as nothing needs it any more
#   out/ done/               the archive; the stamps, and what a phase tells later ones
#
# Lines that the host reads: `@ KEY VALUE` is a fact, `> TEXT` what it is at, `! TEXT` says why it failed, all others are the
# log.
#
# A phase may be cut off anywhere, its last moment included, and is then done again. So nothing that a phase begins with is
# taken away before its stamp is there; `tidy` does that afterwards.
# shellcheck source-path=SCRIPTDIR
set -eu

BUILD=${ZFSDEV_BUILD:-/build}
PHASE=${1:-}
here=$(dirname "$0")
# shellcheck source=/dev/null
. "$BUILD/settings.sh"
# shellcheck source=kernel/lib.sh
. "$here/kernel/lib.sh"
# shellcheck source=kernel/unread.sh
. "$here/kernel/unread.sh"
# shellcheck source=kernel/source.sh
. "$here/kernel/source.sh"
# shellcheck source=kernel/config.sh
. "$here/kernel/config.sh"
# shellcheck source=kernel/pack.sh
. "$here/kernel/pack.sh"

# --- preflight: tools, memory, disk ----------------------------------------------------------------------------------

# What the phases call, the last of them included: whatever is missing is better known before hours of compiling.
PROGRAMS='ar bc bison busybox depmod flex gcc ld make modprobe nm objcopy strip tar xz zstd'

check_programs() {
  case $SOURCE_KIND in
    debian) also='apt-get dpkg-deb' ;;
    url) also=curl ;;
    git) also=git ;;
    *) also='' ;;
  esac
  missing=''
  for program in $PROGRAMS $also; do
    command -v "$program" >/dev/null || missing="$missing $program"
  done
  [ -z "$missing" ] || die "programs that a build needs are missing here:$missing"
}

# As many compilers at once as were asked for, and as there is memory for.
take_jobs() {
  memory=$(awk '$1 == "MemAvailable:" { print $2 }' /proc/meminfo)
  # A compiler takes a few hundred MiB at its worst; the linker of a large kernel a gigabyte, once.
  most=$((memory / 400000))
  [ "$most" -ge 1 ] || most=1
  jobs=$1
  if [ "$jobs" -gt "$most" ]; then
    jobs=$most
    fact notice "$((memory / 1024)) MiB of memory are free: $jobs at a time instead of $1"
  fi
  put jobs "$jobs"
}

do_preflight() {
  # A root file system that was made for this has them from the start.
  if [ "$TOOLS" = install ]; then
    sh "$here/build-tools.sh" || die 'the build tools could not be installed: is there a network?'
  fi
  check_programs
  remember_base
  free=$(df -Pk "$BUILD" | awk 'NR == 2 { print $4 }')
  [ "$free" -ge "$NEEDED_KIB" ] ||
    die "not enough space to build in: $((free / 1024)) MiB are free, $((NEEDED_KIB / 1024)) MiB are needed"
  # shellcheck disable=SC2153
  take_jobs "$JOBS"
  fact jobs "$(get jobs)"
  put compiler "$(gcc --version | head -n 1)"
  fact compiler "$(get compiler)"
}

# --- make ------------------------------------------------------------------------------------------------------------

# A machine that lost its power has files that make takes for made, and whose content never reached the disk: what was
# written in the last two minutes before that is made again. The kernel writes what is dirty for longer than half a minute.
forget_unsafe() {
  now=$(cat /proc/sys/kernel/random/boot_id)
  before=$(get boot)
  [ "$before" != "$now" ] || return 0
  last=''
  if [ -n "$before" ]; then
    last=$(find "$BUILD/src" -type f -newer "$BUILD/done/config" -printf '%T@\n' | sort -n | tail -n 1)
  fi
  if [ -n "$last" ]; then
    find "$BUILD/src" -type f -newer "$BUILD/done/config" -newermt "@$((${last%.*} - 120))" ! -name .config -delete
  fi
  # Only now: what is cut off before this is forgotten again.
  put boot "$now"
  settle
}

do_make() {
  forget_unsafe
  # Without modules there is no such target.
  targets=$KERNEL_IMAGE
  if is_set MODULES; then targets="$targets modules"; fi
  # The word splitting is meant: one word a target.
  # shellcheck disable=SC2086
  kernel_make -j "$(get jobs)" $targets || die 'the kernel does not compile'
  times >"$BUILD/cost"
  fact cpu "$(children_cost "$BUILD/cost")"
  rm -f "$BUILD/cost"
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
}

# OpenZFS needs headers, tools and symbols, and no object of the kernel's.
drop_objects() {
  find "$BUILD/src" \( -name '*.o' -o -name '*.a' -o -name '*.ko' -o -name '*.mod.c' \) ! -path '*/scripts/*' \
    ! -path '*/tools/*' ! -path '*/arch/*/lib/*' ! -name module-common.o -delete
  rm -f "$BUILD/src/vmlinux" "$BUILD/src/vmlinux.unstripped"
}

# --- zfs -------------------------------------------------------------------------------------------------------------

do_zfs() {
  release=$(get release)
  if [ "$ZFS" != none ]; then
    unpack_zfs
    saying "configuring OpenZFS: some hundred small modules are compiled, and nothing is said meanwhile"
    (
      cd "$BUILD/zfs"
      # Python's bindings are for the tools, which nobody makes here; and as many compilers at once as there is memory for.
      TEST_JOBS=$(get jobs) ./configure --with-config=kernel --disable-pyzfs --with-linux="$BUILD/src" \
        --with-linux-obj="$BUILD/src"
    ) || die "OpenZFS $(get zfs-version) can not be configured for this kernel: it may be too new for it"
    make -C "$BUILD/zfs" -j "$(get jobs)" || die "OpenZFS $(get zfs-version) does not compile for this kernel"
    target=$BUILD/stage/lib/modules/$release/updates/zfs
    mkdir -p "$target"
    find "$BUILD/zfs/module" -name '*.ko' -exec cp {} "$target/" \;
    [ -f "$target/zfs.ko" ] || die 'OpenZFS was compiled, and there is no zfs.ko'
    strip --strip-debug "$target"/*.ko
    fact zfs "$(get zfs-version)"
  fi
  if [ -f "$BUILD/stage/lib/modules/$release/modules.order" ]; then
    depmod -b "$BUILD/stage" -F "$BUILD/stage/System.map" "$release" || die 'depmod failed'
  fi
}

# --- power cuts --------------------------------------------------------------------------------------------------------

# A machine is killed sooner than a host loses its power: in there all is on the disk at the end of each phase. A host is not
# kept busy with what may be gone again before it would have written it. If it loses its power in the first two minutes of a
# build, that is begun anew, as the host finds no done/settled.
settle() {
  [ "$TRIM" = yes ] || [ -n "$(find "$BUILD/settings.sh" -mmin +1)" ] || return 0
  sync -f "$BUILD"
  settled=yes
}

# --- what nothing needs any more ---------------------------------------------------------------------------------------

# Takes away what the phase leaves behind; if that is cut off, the next call goes on with it.
tidy() {
  [ ! -f "$BUILD/done/$PHASE.tidy" ] || return 0
  case $PHASE in
    source) rm -rf "$BUILD/fetch" "$BUILD/in/source.tar" ;;
    modules) [ "$ZFS" = none ] || drop_objects ;;
    zfs) rm -rf "$BUILD/zfs" "$BUILD/src" ;;
    archive) rm -rf "$BUILD/pack" "$BUILD/stage" ;;
    *) return 0 ;;
  esac
  trim
  : >"$BUILD/done/$PHASE.tidy"
}

case $PHASE in
  preflight | source | config | make | modules | zfs | initrd | archive) ;;
  *) die "usage: kernel-build.sh preflight|source|config|make|modules|zfs|initrd|archive" ;;
esac
mkdir -p "$BUILD/done" "$BUILD/out"
# A run that the host has lost sight of gets a moment to end. What it started holds the lock as well.
exec 9>"$BUILD/lock"
flock -w 60 9 || die 'an earlier run of this build is still at work in there'
if [ -f "$BUILD/done/$PHASE" ]; then
  # What it told the first time, for the host to know again.
  cat "$BUILD/done/$PHASE"
else
  : >"$BUILD/facts"
  # The first phase finds out how many there may be.
  case $PHASE:${2:-} in
    preflight:) ;;
    preflight:*) JOBS=$2 ;;
    *:) ;;
    *) [ "$2" = "$(get asked)" ] || take_jobs "$2" ;;
  esac
  [ -z "${2:-}" ] || put asked "$2"
  "do_$PHASE"
  # The others take nothing worth the while, or the next one takes more.
  case $PHASE in modules | zfs | archive) measure_peak ;; esac
  peak=$(get peak)
  fact peak "${peak:-0}"
  # What a stamp tells of is on the disk before the stamp is, and the stamp before anything is taken away.
  settle
  mv "$BUILD/facts" "$BUILD/done/$PHASE"
  [ -z "${settled:-}" ] || : >"$BUILD/done/settled"
  settle
fi
tidy
