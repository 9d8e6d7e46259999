# shellcheck shell=sh disable=SC2154
# Compiles what Debian's cloud kernel lacks for the host's folders to be mounted. In 6.12 that is 9p; virtiofs is built in.
# kernel-hook.sh reads it, with $root, $kernel and $modules set, where the kernel's headers and Debian's package of its
# source are installed.

# What the two types of a share take: modules, folders of the source, and the options by which those are made.
NINE_MODULES='9p 9pnet_virtio'
NINE_FOLDERS='net/9p fs/9p'
NINE_OPTIONS='NET_9P NET_9P_VIRTIO 9P_FS'
VIRTIOFS_MODULES='virtiofs'
VIRTIOFS_FOLDERS='fs/fuse'
VIRTIOFS_OPTIONS='VIRTIO_FS'

# Whether all of these modules are there or built in.
has_modules() {
  for module; do
    chroot "$root" modprobe --set-version "$kernel" --show-depends "$module" >/dev/null 2>&1 || return 1
  done
}
configured() { grep -q "^CONFIG_$1=[ym]\$" "$root/boot/config-$kernel"; }

# The types of shares that the kernel can mount now.
share_types() {
  # The word splitting is meant, here and below: one word a module, a folder, an option.
  # shellcheck disable=SC2086
  if has_modules $NINE_MODULES; then printf '9p '; fi
  # shellcheck disable=SC2086
  if has_modules $VIRTIOFS_MODULES; then printf 'virtiofs'; fi
}

# Sets $folders and $options to what is missing; both stand on others, which the kernel has where something else took them.
find_missing() {
  folders='' options=''
  # shellcheck disable=SC2086
  if ! has_modules $NINE_MODULES; then
    if ! configured NETFS_SUPPORT; then folders=fs/netfs options=NETFS_SUPPORT; fi
    folders="$folders $NINE_FOLDERS" options="$options $NINE_OPTIONS"
  fi
  # shellcheck disable=SC2086
  if ! has_modules $VIRTIOFS_MODULES; then
    configured FUSE_FS || options="$options FUSE_FS"
    folders="$folders $VIRTIOFS_FOLDERS" options="$options $VIRTIOFS_OPTIONS"
  fi
}

# Sets $source to the name of the package with the kernel's source. Fails unless it is that of this very kernel: in sid the
# two don't always come at once.
find_source() {
  set -- "$root"/usr/src/linux-source-*.tar.xz
  [ -f "$1" ] || die "there is no package of the kernel's source"
  source=${1##*/}
  source=${source%.tar.xz}
  [ "$(version_of "$source")" = "$(version_of "linux-image-$kernel")" ]
}

unpack_source() {
  mkdir "$root/zfsdev-source"
  set --
  for folder in $folders; do set -- "$@" "$source/$folder"; done
  chroot "$root" env XZ_DEFAULTS=-T0 tar -C /zfsdev-source --strip-components=1 -xJf "/usr/src/$source.tar.xz" "$@" ||
    die "the kernel's source lacks something of: $folders"
}

# All in one go: one of them takes symbols of another.
make_modules() {
  # shellcheck disable=SC2086
  printf 'obj-m += %s/\n' $folders >"$root/zfsdev-source/Kbuild"
  set --
  for option in $options; do set -- "$@" "CONFIG_$option=m"; done
  # What it says stands in the log of the image's build.
  chroot "$root" make -C "/lib/modules/$kernel/build" M=/zfsdev-source "-j$(nproc)" "$@" modules ||
    die "the modules for shares were not compiled for $kernel (the compiler's words are above)"
}

compile_share_modules() {
  find_missing
  [ -n "$folders" ] || return 0
  if ! find_source; then
    echo "kernel-hook: $source is $(version_of "$source"), not the source of linux-image-$kernel: no modules for shares" >&2
    return 0
  fi
  unpack_source
  make_modules
  mkdir -p "$modules/updates/zfsdev"
  find "$root/zfsdev-source" -name '*.ko' -exec mv {} "$modules/updates/zfsdev/" \;
  for module in "$modules/updates/zfsdev"/*.ko; do
    chroot "$root" strip --strip-debug "${module#"$root"}"
    chmod 0644 "$module"
  done
  rm -rf "$root/zfsdev-source"
  depmod_in_root
  # shellcheck disable=SC2086
  has_modules $NINE_MODULES $VIRTIOFS_MODULES || die "the modules for shares were compiled, and $kernel does not know them"
}
