# shellcheck shell=sh disable=SC2154
# What the runtime stages of all flavours do alike. A root-hook.sh reads it after settings.sh, with $root (the Debian
# root) and $work (the folder of the hook) set.

install_files() {
  cp -R "$work/files/." "$root/"
  tar -C "$root" --keep-directory-symlink -xzf "$work/kernel.tar.gz" lib/modules
}

# Takes away what belongs to one machine alone, and sets what all guests share; and $mirror.
make_anonymous() {
  rm -f "$root"/etc/ssh/ssh_host_* "$root/etc/resolv.conf" "$root/etc/hostname" "$root/etc/hosts" \
    "$root/var/lib/dbus/machine-id" "$root/var/lib/systemd/random-seed"
  # Empty rather than absent: without the file, systemd would take each first boot for that of a new installation and
  # enable units again.
  : >"$root/etc/machine-id"
  mirror=$(mirror_of)
  rm -f "$root/etc/apt/sources.list" "$root"/etc/apt/sources.list.d/*
  printf 'Types: deb\nURIs: %s\nSuites: %s\nComponents: %s\nSigned-By: %s\n' \
    "$mirror" "$SUITE" "$COMPONENTS" /usr/share/keyrings/debian-archive-keyring.gpg \
    >"$root/etc/apt/sources.list.d/debian.sources"
}

# Where the packages came from, as mmdebstrap wrote it down: its own choice, or the one it was told.
mirror_of() {
  awk '$1 == "deb" { for (i = 2; i <= NF; i++) if ($i ~ /^(https?|file):/) { print $i; exit } }' "$root/etc/apt/sources.list"
}

# The arguments are units; one that is masked is never started.
mask() {
  for unit; do ln -sf /dev/null "$root/etc/systemd/system/$unit"; done
}

mask_generators() {
  mkdir -p "$root/etc/systemd/system-generators"
  for generator; do ln -sf /dev/null "$root/etc/systemd/system-generators/$generator"; done
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

# Leaves image.json, and sets the variables of the kernel stage's kernel.sh.
describe() {
  tar -C "$work" -xzOf "$work/kernel.tar.gz" zfsdev/kernel.sh >"$work/kernel.sh"
  # shellcheck source=/dev/null
  . "$work/kernel.sh"
  printf '{\n  "format": %s,\n  "flavour": "%s",\n  "suite": "%s",\n  "debian": "%s",\n  "kernel": "%s",\n' \
    "$FORMAT_VERSION" "$IMAGE_FLAVOUR" "$SUITE" "$(cat "$root/etc/debian_version")" "$KERNEL_VERSION" >"$work/image.json"
  printf '  "kernelPackage": "%s",\n  "openzfs": "%s",\n  "zfsutils": "%s",\n  "node": "%s",\n  "shares": "%s",\n  "mirror": "%s"\n}\n' \
    "$KERNEL_PACKAGE_VERSION" "$OPENZFS_VERSION" "$(version_of zfsutils-linux)" "$(version_of nodejs)" "$SHARES" "$mirror" \
    >>"$work/image.json"
  install -m 0644 "$work/image.json" "$root/etc/zfsdev/image.json"
  chmod 0644 "$work/image.json"
}

# Makes $plain, a view of the root for mke2fs, and sets $kib, the size of a file system for it: as small as its content
# allows, the guest grows it to its disk. A bind mount leaves out what is mounted below the root.
begin_packing() {
  plain=$work/plain-root
  mkdir -p "$plain" "$work/tmp"
  # mmdebstrap's own settings lie there, and it still wants them: without them its last call of apt-get would work on
  # the host.
  find "$root/tmp" -mindepth 1 -maxdepth 1 -exec mv {} "$work/tmp/" \;
  mount --bind "$root" "$plain"
  kib=$(du -sk "$plain" | cut -f 1)
  # Whole mebibytes: as a partition it ends where the next one may begin.
  kib=$(((kib + kib / 10 + 65536 + 1023) / 1024 * 1024))
}

# Writes the root as ext4 with label $1 into disk.raw, from byte $2 on.
pack_root() {
  mke2fs -q -F -t ext4 -b 4096 -I 256 -i 16384 -m 0 -J size=16 -L "$1" \
    -E "lazy_itable_init=1,lazy_journal_init=1,nodiscard,offset=$2" -d "$plain" "$work/disk.raw" "${kib}k"
}

end_packing() {
  umount "$plain"
  rmdir "$plain"
  find "$work/tmp" -mindepth 1 -maxdepth 1 -exec mv {} "$root/tmp/" \;
  chmod 0644 "$work/disk.raw"
}
