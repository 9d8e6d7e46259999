# shellcheck shell=sh disable=SC2034,SC2154
# What the phases of kernel-build.sh share: telling the host, remembering, and calling the kernel's make. Read with $BUILD
# and $PHASE set.

case $(uname -m) in
  x86_64) ARCH=x86_64 SRCARCH=x86 KERNEL_IMAGE=bzImage ;;
  aarch64) ARCH=arm64 SRCARCH=arm64 KERNEL_IMAGE=Image ;;
  *) ARCH=$(uname -m) SRCARCH=$ARCH KERNEL_IMAGE=vmlinux ;;
esac

# The locale would decide the order of names, and the language that the host has to read.
export LC_ALL=C.UTF-8

die() {
  printf '! %s\n' "$*"
  exit 1
}

# Tells the host `$1` is `$2`; told again when the phase is asked for again.
fact() {
  printf '@ %s %s\n' "$1" "$2" | tee -a "$BUILD/facts"
}

# Tells the user what it is at, where that is not to be seen from what the programs say.
saying() { printf '> %s\n' "$*"; }

# Remembers $2 as $1 for later phases.
put() { printf '%s\n' "$2" >"$BUILD/done/$1.value"; }
get() { cat "$BUILD/done/$1.value" 2>/dev/null || true; }

# True for an option of the kernel that is built in or a module.
is_set() { grep -Eq "^CONFIG_$1=[ym]" "$BUILD/src/.config"; }

if [ -n "${CCACHE_DIR:-}" ] && command -v ccache >/dev/null; then PATH=$here/kernel/cached:$PATH; fi

# The kernel's make. What makes two builds of one source differ for nothing (and a compiler's cache miss) is pinned.
kernel_make() {
  make -C "$BUILD/src" ARCH="$ARCH" CC=gcc KBUILD_BUILD_USER=zfsdev KBUILD_BUILD_HOST=zfsdev \
    KBUILD_BUILD_TIMESTAMP="$BUILD_TIME" LOCALVERSION= "$@"
}

# Milliseconds of a processor that a shell's children have taken, the system's share included: from what its own `times` wrote
# into the file $1. Unlike a clock's, they do not depend on what else the host is at.
children_cost() {
  awk 'NR == 2 { for (i = 1; i <= 2; i++) { split($i, part, /[ms]/); sum += part[1] * 60 + part[2] }; print int(sum * 1000) }' "$1"
}

used() { df -Pk "$BUILD" | awk 'NR == 2 { print $3 }'; }

folder_size() { du -sk "$BUILD" | cut -f 1; }

# What is on a machine's disk beside the build, in KiB.
remember_base() { [ "$TRIM" != yes ] || put base "$(($(used) - $(folder_size)))"; }

# Keeps the most that the build has taken, in KiB. A machine's disk is its own, and knows at once; to look at each file of a
# kernel's tree takes an emulated one a good while, and this is asked after each phase.
measure_peak() {
  if [ "$TRIM" = yes ]; then now=$(($(used) - $(get base))); else now=$(folder_size); fi
  before=$(get peak)
  if [ "$now" -gt "${before:--1}" ]; then put peak "$((now > 0 ? now : 0))"; fi
}

# Gives back what was deleted to the host, where there is a machine's own disk between the two.
trim() {
  [ "$TRIM" != yes ] || fstrim "$BUILD" 2>/dev/null || true
}
