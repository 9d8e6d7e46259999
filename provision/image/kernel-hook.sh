#!/bin/sh
# Kernel stage: takes the kernel, its modules and (flavour zfs) the compiled ZFS module out of the toolchain root, after it
# has compiled what the kernel lacks for shares.
# mmdebstrap calls it with the root as its argument, as root or as root of a user namespace.
#
# Reads settings.sh (FLAVOUR) and share-modules.sh beside itself. Leaves kernel.tar.gz there:
#   lib/modules/VERSION/...       what the guest gets; the modules that every boot loads are there uncompressed
#   zfsdev/vmlinuz zfsdev/vmlinux the kernel as Debian ships it, and unpacked (a boot is 0.8 s shorter under TCG)
#   zfsdev/modules/NN-NAME.ko     what the initrd loads, in the order of the numbers
#   zfsdev/kernel.sh              KERNEL_VERSION, KERNEL_PACKAGE_VERSION, OPENZFS_VERSION, SHARES
set -eu
root=$1
work=$(dirname "$0")
# shellcheck source=/dev/null
. "$work/settings.sh"
# shellcheck source=share-modules.sh
. "$work/share-modules.sh"

# The initrd's modules. failover and net_failover come as dependencies of virtio_net.
INITRD_MODULES='virtio_blk virtio_net virtio_rng'
# What each boot loads from the root file system.
EAGER_MODULES='loop button evdev'
[ "$FLAVOUR" != zfs ] || EAGER_MODULES="$EAGER_MODULES zfs"

die() {
  echo "kernel-hook: $*" >&2
  exit 1
}

kernel=''
for folder in "$root"/lib/modules/*; do
  [ -d "$folder/kernel" ] || continue
  [ -z "$kernel" ] || die "more than one kernel: $kernel and ${folder##*/}"
  kernel=${folder##*/}
done
[ -n "$kernel" ] || die "no kernel was installed"
modules=$root/lib/modules/$kernel
if [ "$FLAVOUR" = zfs ] && [ -z "$(find "$modules/updates" -name 'zfs.ko*' 2>/dev/null)" ]; then
  cat "$root"/var/lib/dkms/zfs/*/build/make.log >&2 || true
  die "the ZFS module was not compiled for $kernel (the log of its compilation is above)"
fi

version_of() { chroot "$root" dpkg-query -W -f "\${Version}" "$1"; }
depmod_in_root() { chroot "$root" depmod "$kernel"; }
compile_share_modules
rm -f "$modules/build" "$modules/source"
# Paths, below /, of a module and all it needs, in the order of loading.
needed() {
  chroot "$root" modprobe --set-version "$kernel" --show-depends "$1" | sed -n 's/^insmod \([^ ]*\).*/\1/p'
}
depmod_in_root
for name in $INITRD_MODULES $EAGER_MODULES; do
  needed "$name" >"$work/needed"
  [ -s "$work/needed" ] || continue
  while read -r path; do
    case $path in
      *.xz) chroot "$root" xz -d "$path" ;;
      *.zst) chroot "$root" zstd -q -d --rm "$path" ;;
    esac
  done <"$work/needed"
  depmod_in_root
done

out=$root/zfsdev
mkdir -p "$out/modules"
number=10
for name in $INITRD_MODULES; do
  needed "$name" >"$work/needed"
  while read -r path; do
    ls "$out/modules/"*"-${path##*/}" >/dev/null 2>&1 && continue
    cp "$root$path" "$out/modules/$number-${path##*/}"
    number=$((number + 1))
  done <"$work/needed"
done
rm -f "$work/needed"

# bzImage: the setup code's length is in byte 497, the payload's offset and length (with 4 bytes of its unpacked size at
# the end) in the words at 584 and 588 (Documentation/arch/x86/boot.rst in the kernel's source).
number_at() { od -An -t "u$3" -j "$2" -N "$3" "$1" | tr -d ' '; }
cp "$root/boot/vmlinuz-$kernel" "$out/vmlinuz"
setup=$(number_at "$out/vmlinuz" 497 1)
offset=$(number_at "$out/vmlinuz" 584 4)
length=$(number_at "$out/vmlinuz" 588 4)
tail -c +$(((setup + 1) * 512 + offset + 1)) "$out/vmlinuz" | head -c $((length - 4)) >"$root/zfsdev.payload"
if chroot "$root" zstd -q -d -c /zfsdev.payload >"$out/vmlinux" 2>/dev/null; then :; else rm -f "$out/vmlinux"; fi
rm -f "$root/zfsdev.payload"

{
  echo "KERNEL_VERSION='$kernel'"
  echo "KERNEL_PACKAGE_VERSION='$(version_of "linux-image-$kernel")'"
  if [ "$FLAVOUR" = zfs ]; then echo "OPENZFS_VERSION='$(version_of zfs-dkms)'"; else echo "OPENZFS_VERSION=''"; fi
  echo "SHARES='$(share_types)'"
} >"$out/kernel.sh"
tar -C "$root" -czf "$work/kernel.tar.gz.part" zfsdev "lib/modules/$kernel"
chmod 0644 "$work/kernel.tar.gz.part"
mv "$work/kernel.tar.gz.part" "$work/kernel.tar.gz"
rm -rf "$out"
