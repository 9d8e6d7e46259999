#!/bin/sh
# Runtime stage: turns a fresh Debian root into the guest's root file system, and packs it.
# mmdebstrap calls it with the root as its argument, as root or as root of a user namespace.
#
# Reads beside itself: settings.sh (FLAVOUR, SUITE, COMPONENTS, MIRROR, FORMAT_VERSION), kernel.tar.gz (kernel-hook.sh),
# files/ (copied over the root), pool.sh. Leaves there: disk.raw (ext4 straight on the disk), busybox, image.json.
set -eu
root=$1
work=$(dirname "$0")
# shellcheck source=/dev/null
. "$work/settings.sh"

# Units that Debian enables and this guest has no use for. They cost seconds where the CPU is emulated.
MASKED='
  apt-daily-upgrade.timer apt-daily.timer dpkg-db-backup.timer e2scrub_all.timer e2scrub_reap.service fstrim.timer
  systemd-tmpfiles-clean.timer
  dev-hugepages.mount dev-mqueue.mount tmp.mount run-lock.mount proc-sys-fs-binfmt_misc.automount sys-kernel-config.mount
  sys-kernel-debug.mount sys-kernel-tracing.mount sys-fs-fuse-connections.mount
  getty.target getty-static.service console-getty.service serial-getty@.service autovt@.service
  systemd-tmpfiles-setup-dev-early.service systemd-tmpfiles-setup-dev.service
  kmod-static-nodes.service modprobe@.service systemd-modules-load.service
  systemd-ask-password-console.path systemd-ask-password-wall.path
  systemd-binfmt.service systemd-firstboot.service systemd-hwdb-update.service systemd-journal-catalog-update.service
  systemd-machine-id-commit.service systemd-pcrphase.service systemd-pcrphase-sysinit.service systemd-pcrmachine.service
  systemd-pstore.service systemd-random-seed.service systemd-remount-fs.service systemd-sysusers.service
  systemd-tpm2-setup.service systemd-tpm2-setup-early.service systemd-update-done.service
  systemd-udev-settle.service systemd-udev-trigger.service systemd-udev-load-credentials.service
  systemd-battery-check.service systemd-hibernate-clear.service systemd-journal-flush.service
  systemd-creds.socket systemd-hostnamed.socket systemd-sysext.socket systemd-pcrextend.socket systemd-pcrlock.socket
  systemd-networkd.socket systemd-rfkill.socket systemd-initctl.socket systemd-bootctl.socket
  systemd-logind.service systemd-user-sessions.service sshd-keygen.service ssh.service ssh.socket
  ldconfig.service remote-fs.target rescue-ssh.target
  zfs-import-cache.service zfs-import-scan.service zfs-load-module.service zfs-mount.service zfs-share.service
  zfs-volume-wait.service zfs-load-key.service zfs-import.target zfs-volumes.target zfs.target
'
# Generators run one after another's heels before the first unit starts. fstab and sysv stay: what a user installs may
# count on them.
MASKED_GENERATORS='
  systemd-debug-generator systemd-getty-generator systemd-gpt-auto-generator systemd-hibernate-resume-generator
  systemd-rc-local-generator systemd-run-generator systemd-ssh-generator systemd-system-update-generator
  systemd-tpm2-generator systemd-bless-boot-generator zfs-mount-generator systemd-factory-reset-generator
'
ENABLED='zfsdev-started.service zfsdev-udev.service zfsdev-pool.service zfsdev-grow.service zfsdev-ready.service
  zfsdev-power-button.service zfsdev-agent.service zfsdev-ssh.socket'

install_files() {
  cp -R "$work/files/." "$root/"
  install -m 0755 "$work/pool.sh" "$root/usr/lib/zfsdev/pool.sh"
  chmod -R u=rwX,go=rX "$root/usr/lib/zfsdev"
  tar -C "$root" --keep-directory-symlink -xzf "$work/kernel.tar.gz" lib/modules
}

configure() {
  units=$root/etc/systemd/system
  for unit in $MASKED; do ln -sf /dev/null "$units/$unit"; done
  mkdir -p "$root/etc/systemd/system-generators" "$units/multi-user.target.wants"
  for generator in $MASKED_GENERATORS; do ln -sf /dev/null "$root/etc/systemd/system-generators/$generator"; done
  for unit in $ENABLED; do ln -sf "/etc/systemd/system/$unit" "$units/multi-user.target.wants/$unit"; done
  ln -sf /usr/lib/systemd/system/multi-user.target "$units/default.target"
  rm -f "$root"/etc/ssh/ssh_host_*
  # systemd-user-sessions, which would lift this ban, is masked.
  mkdir -p "$root/etc/tmpfiles.d"
  ln -sf /dev/null "$root/etc/tmpfiles.d/systemd-nologin.conf"

  rm -f "$root/etc/resolv.conf" "$root/etc/hostname" "$root/etc/hosts"
  echo 'nameserver 10.0.2.3' >"$root/etc/resolv.conf"
  : >"$root/etc/machine-id"
  : >"$root/etc/fstab"
  rm -f "$root/etc/apt/sources.list" "$root"/etc/apt/sources.list.d/*
  printf 'Types: deb\nURIs: %s\nSuites: %s\nComponents: %s\nSigned-By: %s\n' \
    "$MIRROR" "$SUITE" "$COMPONENTS" /usr/share/keyrings/debian-archive-keyring.gpg \
    >"$root/etc/apt/sources.list.d/debian.sources"
}

# What mmdebstrap would only remove after this hook, what building left behind, and what nobody reads in a test machine.
clean() {
  chroot "$root" apt-get clean
  rm -rf "$root"/var/lib/apt/lists/* "$root"/var/cache/apt/* "$root"/var/cache/debconf/*-old "$root"/var/lib/dpkg/*-old \
    "$root"/var/log/* "$root"/var/tmp/* "$root"/run/* "${root:?}"/boot/* "$root/zfsdev" \
    "$root"/usr/share/nodejs/corepack/dist "$root"/usr/lib/udev/hwdb.bin "$root"/usr/lib/udev/hwdb.d/*
  mkdir -p "$root/var/lib/apt/lists/partial" "$root/var/cache/apt/archives/partial" "$root/etc/zfsdev"
  # Older than this, systemd would spend the first boot on rebuilding caches.
  touch "$root/etc/.updated" "$root/var/.updated"
}

version_of() { chroot "$root" dpkg-query -W -f "\${Version}" "$1" 2>/dev/null || true; }
describe() {
  tar -C "$work" -xzOf "$work/kernel.tar.gz" zfsdev/kernel.sh >"$work/kernel.sh"
  # shellcheck source=/dev/null
  . "$work/kernel.sh"
  printf '{\n  "format": %s,\n  "flavour": "%s",\n  "suite": "%s",\n  "debian": "%s",\n  "kernel": "%s",\n' \
    "$FORMAT_VERSION" "$FLAVOUR" "$SUITE" "$(cat "$root/etc/debian_version")" "$KERNEL_VERSION" >"$work/image.json"
  printf '  "kernelPackage": "%s",\n  "openzfs": "%s",\n  "zfsutils": "%s",\n  "node": "%s"\n}\n' \
    "$KERNEL_PACKAGE_VERSION" "$OPENZFS_VERSION" "$(version_of zfsutils-linux)" "$(version_of nodejs)" >>"$work/image.json"
  install -m 0644 "$work/image.json" "$root/etc/zfsdev/image.json"
}

# The file system is as small as its content allows; the guest grows it to its disk. A bind mount leaves out the /proc,
# /sys and /dev that mmdebstrap has mounted below the root.
pack() {
  plain=$work/plain-root
  mkdir -p "$plain" "$work/tmp"
  # mmdebstrap's own settings lie there, and it still wants them: without them its last call of apt-get would work on
  # the host.
  find "$root/tmp" -mindepth 1 -maxdepth 1 -exec mv {} "$work/tmp/" \;
  mount --bind "$root" "$plain"
  kib=$(du -sk "$plain" | cut -f 1)
  rm -f "$work/disk.raw"
  mke2fs -q -t ext4 -b 4096 -I 256 -i 16384 -m 0 -J size=16 -L zfsdev \
    -E lazy_itable_init=1,lazy_journal_init=1,nodiscard -d "$plain" "$work/disk.raw" $((kib + kib / 10 + 65536))k
  umount "$plain"
  rmdir "$plain"
  find "$work/tmp" -mindepth 1 -maxdepth 1 -exec mv {} "$root/tmp/" \;
  cp "$root/usr/bin/busybox" "$work/busybox"
  chmod 0644 "$work/disk.raw" "$work/busybox" "$work/image.json"
}

install_files
configure
clean
describe
pack
