#!/bin/sh
# Runtime stage of flavour cloud: turns a fresh Debian root into a disk that boots by itself under UEFI, for whoever gives
# it a NoCloud seed. mmdebstrap calls it with the root as its argument, as root or as root of a user namespace.
#
# Reads beside itself: settings.sh (as the other flavours' hook, and BUILD_PACKAGES), root-lib.sh, kernel.tar.gz
# (kernel-hook.sh), init, files/ (copied over the root). Leaves there: disk.raw, initrd, image.json.
#
# The disk: GPT; an EFI system partition with one program, the unified kernel image; and last, so that growpart can grow
# it, the root file system. There is no boot loader: a newer kernel comes with a newer image, as its ZFS module does.
set -eu
root=$1
work=$(dirname "$0")
# shellcheck source=/dev/null
. "$work/settings.sh"
# shellcheck source=../image/root-lib.sh
. "$work/root-lib.sh"

# Where the programs of the root find what they work on.
boot=$root/zfsdev-boot
LABEL=zfsdev-root
MIB=1048576
# The EFI system partition begins after the first mebibyte, as everywhere. 64 MiB hold the kernel thrice, and are enough
# for FAT32, which every firmware reads.
ESP_START=1
ESP_SIZE=64
ROOT_START=$((ESP_START + ESP_SIZE))
# The GPT's copy at the end.
TAIL=1

# Timers and mounts that a test machine has no use for.
MASKED='
  apt-daily-upgrade.timer apt-daily.timer dpkg-db-backup.timer e2scrub_all.timer e2scrub_reap.service fstrim.timer
  systemd-hwdb-update.service systemd-pstore.service sshd-keygen.service
'
# gpt-auto would mount the EFI system partition on /boot, and the ssh one listen on vsock.
MASKED_GENERATORS='
  systemd-gpt-auto-generator systemd-hibernate-resume-generator systemd-ssh-generator systemd-tpm2-generator
  systemd-bless-boot-generator systemd-factory-reset-generator systemd-rc-local-generator
  systemd-run-generator systemd-system-update-generator zfs-mount-generator
'
ENABLED='systemd-networkd.service systemd-resolved.service ssh.service zfsdev-hostid.service'

die() {
  echo "root-hook: $*" >&2
  exit 1
}

case $(chroot "$root" dpkg --print-architecture) in
  amd64) EFI_ARCH=x64 CONSOLE=ttyS0 ;;
  arm64) EFI_ARCH=aa64 CONSOLE=ttyAMA0 ;;
  *) die "no UEFI is known for this architecture" ;;
esac
# The last console that exists is the one init writes to; hvc0 is what Apple's virtualization offers. Names of network
# cards stay the kernel's, so that cloud-init need not rename eth0 while something uses it. Mitigations are off as with
# the other flavours: a test machine runs its owner's own code.
COMMAND_LINE="root=LABEL=$LABEL ro console=tty0 console=hvc0 console=$CONSOLE net.ifnames=0 loglevel=4 panic=10 mitigations=off"

configure() {
  # The word splitting is meant: one word a unit.
  # shellcheck disable=SC2086
  mask $MASKED
  # shellcheck disable=SC2086
  mask_generators $MASKED_GENERATORS
  # shellcheck disable=SC2086
  chroot "$root" systemctl --quiet enable $ENABLED
  # The module is told a host id when it loads; zfsutils-linux made one for this root, which every machine would share.
  rm -f "$root/etc/hostid"
  ln -sf ../run/systemd/resolve/stub-resolv.conf "$root/etc/resolv.conf"
  printf '127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n' >"$root/etc/hosts"
  # noinit_itable: a grown disk reads as zeros already; zeroing it again would take the host's space.
  echo "LABEL=$LABEL / ext4 noatime,discard,noinit_itable,errors=remount-ro 0 1" >"$root/etc/fstab"
  rm -rf "$root"/var/lib/cloud/*
}

# The initrd: busybox, the drivers, init. /dev/console needs no node here, the kernel brings one along.
make_initrd() {
  tree=$boot/initrd-tree
  mkdir -p "$tree/bin" "$tree/dev" "$tree/proc" "$tree/sys" "$tree/root"
  tar -C "$boot" --strip-components=1 -xzf "$work/kernel.tar.gz" zfsdev/modules zfsdev/vmlinuz
  cp -R "$boot/modules" "$tree/modules"
  cp "$root/usr/bin/busybox" "$tree/bin/busybox"
  ln -s busybox "$tree/bin/sh"
  install -m 0755 "$work/init" "$tree/init"
  chroot "$root" sh -c 'cd /zfsdev-boot/initrd-tree && find . | sort | busybox cpio -o -H newc' >"$boot/initrd" ||
    die "the initrd can't be packed"
  install -m 0644 "$boot/initrd" "$work/initrd"
}

# Runs a program of the root, in $boot.
in_boot() { chroot "$root" sh -c 'cd /zfsdev-boot && exec "$@"' sh "$@" || die "$1 failed"; }

# Kernel, initrd and command line as one EFI program, in a FAT file system: esp.raw.
make_esp() {
  in_boot ukify build --linux=vmlinuz --initrd=initrd --cmdline="$COMMAND_LINE" --os-release=@/usr/lib/os-release \
    --stub="/usr/lib/systemd/boot/efi/linux$EFI_ARCH.efi.stub" --output=linux.efi
  truncate -s $((ESP_SIZE * MIB)) "$boot/esp.raw"
  in_boot mformat -i esp.raw -F -v ESP ::
  in_boot mmd -i esp.raw ::/EFI ::/EFI/BOOT
  in_boot mcopy -i esp.raw linux.efi "::/EFI/BOOT/BOOT$(echo "$EFI_ARCH" | tr '[:lower:]' '[:upper:]').EFI"
  mv "$boot/esp.raw" "$work/esp.raw"
  rm -rf "$boot"
}

# They were installed for make_esp alone. apt must not ask for anything: there is nobody to answer.
purge_tools() {
  # The word splitting is meant: one word a package.
  # shellcheck disable=SC2086
  chroot "$root" apt-get -q -y purge --auto-remove $BUILD_PACKAGES
}

pack() {
  begin_packing
  root_size=$((kib / 1024))
  mkdir "$boot"
  truncate -s $(((ROOT_START + root_size + TAIL) * MIB)) "$boot/disk.raw"
  # U is an EFI system partition, L one of Linux.
  printf 'label: gpt\nstart=%sMiB, size=%sMiB, type=U, name=esp\nstart=%sMiB, size=%sMiB, type=L, name=root\n' \
    "$ESP_START" "$ESP_SIZE" "$ROOT_START" "$root_size" >"$boot/partitions"
  in_boot sfdisk --quiet disk.raw <"$boot/partitions"
  mv "$boot/disk.raw" "$work/disk.raw"
  rm -rf "$boot"
  dd if="$work/esp.raw" of="$work/disk.raw" bs=$MIB seek="$ESP_START" conv=notrunc,sparse status=none
  pack_root "$LABEL" $((ROOT_START * MIB))
  end_packing
}

install_files
make_anonymous
make_initrd
make_esp
purge_tools
configure
clean
describe
pack
