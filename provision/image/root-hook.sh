#!/bin/sh
# Runtime stage: turns a fresh Debian root into the guest's root file system, and packs it.
# mmdebstrap calls it with the root as its argument, as root or as root of a user namespace.
#
# Reads beside itself: settings.sh (IMAGE_FLAVOUR, SUITE, COMPONENTS, FORMAT_VERSION), root-lib.sh, kernel.tar.gz
# (kernel-hook.sh), files/ (copied over the root), pool.sh, mounts.sh. Leaves there: disk.raw (ext4 straight on the disk), busybox,
# image.json.
set -eu
root=$1
work=$(dirname "$0")
# shellcheck source=/dev/null
. "$work/settings.sh"
# shellcheck source=root-lib.sh
. "$work/root-lib.sh"

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
ENABLED='zfsdev-started.service zfsdev-udev.service zfsdev-drivers.service zfsdev-pool.service zfsdev-mounts.service
  zfsdev-grow.service zfsdev-ready.service zfsdev-power-button.service zfsdev-agent.service zfsdev-ssh.socket zfsdev-zvold.socket'

install_scripts() {
  install -m 0755 "$work/pool.sh" "$work/mounts.sh" "$root/usr/lib/zfsdev/"
  chmod -R u=rwX,go=rX "$root/usr/lib/zfsdev"
}

configure() {
  units=$root/etc/systemd/system
  # The word splitting is meant, here and below: one word a unit.
  # shellcheck disable=SC2086
  mask $MASKED
  # shellcheck disable=SC2086
  mask_generators $MASKED_GENERATORS
  mkdir -p "$units/multi-user.target.wants"
  for unit in $ENABLED; do ln -sf "/etc/systemd/system/$unit" "$units/multi-user.target.wants/$unit"; done
  ln -sf /usr/lib/systemd/system/multi-user.target "$units/default.target"
  # systemd-user-sessions, which would lift this ban, is masked.
  mkdir -p "$root/etc/tmpfiles.d"
  ln -sf /dev/null "$root/etc/tmpfiles.d/systemd-nologin.conf"
  echo 'nameserver 10.0.2.3' >"$root/etc/resolv.conf"
  : >"$root/etc/fstab"
}

pack() {
  begin_packing
  rm -f "$work/disk.raw"
  pack_root zfsdev 0
  end_packing
  cp "$root/usr/bin/busybox" "$work/busybox"
  chmod 0644 "$work/busybox"
}

install_files
install_scripts
make_anonymous
configure
clean
describe
pack
