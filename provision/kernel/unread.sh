# shellcheck shell=sh disable=SC2154
# What no build for this processor reads, and is therefore not unpacked: it is half of a kernel's source.

# Other processors' code is left out folder by folder: some of their Kconfigs belong to every kernel's.
OTHER_PROCESSORS='alpha arc arm arm64 csky hexagon ia64 loongarch m68k microblaze mips nios2 openrisc parisc powerpc riscv s390 sh
  sparc um x86 xtensa'
PROCESSOR_FOLDERS='boot configs include kernel lib math-emu'

# The registers of AMD's graphics: a third of all that there is, which one driver alone reads.
AMD_REGISTERS=drivers/gpu/drm/amd/include/asic_reg

# A processor's own code, and what it borrows from another one's.
is_own_processor() {
  case $SRCARCH:$1 in
    "$1:$1" | arm64:arm) true ;;
    # Nobody knows here what others borrow.
    x86:* | arm64:*) false ;;
    *) true ;;
  esac
}

# What is asked for may turn AMD's driver on; no configuration that is known here by its name does, but for `defconfig`, of
# which nothing is known before it is unpacked.
may_read_amd_registers() {
  [ "$CONFIG" != defconfig ] || return 0
  cat "$BUILD"/in/fragments/* "$BUILD/in/config" 2>/dev/null | grep -q '^CONFIG_DRM_AMDGPU=[ym]'
}

# Paths as tar looks for them anywhere in an archive, a line each.
unread_folders() {
  for other in $OTHER_PROCESSORS; do
    is_own_processor "$other" ||
      for folder in $PROCESSOR_FOLDERS; do echo "arch/$other/$folder"; done
  done
  printf '%s\n' tools/testing tools/perf
  may_read_amd_registers || echo "$AMD_REGISTERS"
}

# Unpacks a kernel's source from the file $1 into src.part, without its one top folder. What follows is for tar: from standard
# input it does not find out by itself how it is packed.
unpack_tree() {
  archive=$1
  shift
  unread_folders >"$BUILD/unread"
  # Plain names are looked up in a moment, patterns one by one: these two are for all documentation but for what
  # `make mrproper` asks for.
  tar -C "$BUILD/src.part" --strip-components=1 --no-same-owner --no-wildcards --exclude-from="$BUILD/unread" \
    --wildcards --no-wildcards-match-slash --anchored --exclude='*/Documentation/[!d]*/*' \
    --exclude='*/Documentation/devicetree/bindings/*/*' "$@" -xf "$archive" || return
  rm -f "$BUILD/unread"
}

# A configuration that turns AMD's driver on without having been seen to ask for it.
check_amd_registers() {
  if is_set DRM_AMDGPU && [ ! -d "$BUILD/src/$AMD_REGISTERS" ]; then
    die "CONFIG_DRM_AMDGPU is on without having been asked for, and what it reads was left out: ask for it in a fragment"
  fi
}
