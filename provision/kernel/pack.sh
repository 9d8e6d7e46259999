# shellcheck shell=sh disable=SC2154
# Phases initrd and archive of kernel-build.sh: the small initrd that boots a machine of zfsdev's, and the one file that
# leaves the place.

# What a machine needs before it sees its root; with what each of them needs, in the order of loading. What is built in, or
# not there, is left out.
INITRD_MODULES='virtio_pci virtio_blk virtio_net virtio_rng ext4'

# Paths below stage/ of all modules of the initrd.
initrd_modules() {
  for name in $INITRD_MODULES; do
    modprobe -d "$BUILD/stage" --set-version "$(get release)" --show-depends "$name" 2>/dev/null |
      sed -n "s|^insmod $BUILD/stage\([^ ]*\).*|\1|p"
  done | awk '!seen[$0]++'
}

# The initrd as gen_init_cpio takes it: a device can be described where none may be made.
describe_initrd() {
  for folder in bin dev proc sys root modules; do echo "dir /$folder 0755 0 0"; done
  echo 'nod /dev/console 0600 0 0 c 5 1'
  echo "file /bin/busybox $(command -v busybox) 0755 0 0"
  echo 'slink /bin/sh busybox 0777 0 0'
  echo "file /init $here/image/init 0755 0 0"
  number=10
  initrd_modules | while read -r path; do
    echo "file /modules/$number-${path##*/} $BUILD/stage$path 0644 0 0"
    number=$((number + 1))
  done
}

do_initrd() {
  describe_initrd >"$BUILD/initrd.list"
  "$BUILD/gen_init_cpio" "$BUILD/initrd.list" >"$BUILD/stage/initrd" || die 'the initrd could not be made'
  rm -f "$BUILD/initrd.list"
}

# $1 as a JSON string.
json() {
  printf '"%s"' "$(printf '%s' "$1" | tr -d '\000-\037' | sed -e 's/\\/\\\\/g' -e 's/"/\\"/g')"
}

# One line of the manifest; the last one without its comma.
entry() { printf '  %s: %s%s\n' "$(json "$1")" "$2" "${3-,}"; }

manifest() {
  echo '{'
  entry format 1
  entry release "$(json "$(get release)")"
  entry architecture "$(json "$ARCH")"
  entry source "$(json "$(get source)")"
  entry sourceSha256 "$(json "$(get source-sha256)")"
  entry config "$(json "$CONFIG_NAME")"
  entry localversion "$(json "$LOCALVERSION")"
  entry zfs "$(json "$(get zfs-version)")"
  entry zfsSha256 "$(json "$(get zfs-sha256)")"
  entry compiler "$(json "$(get compiler)")"
  entry guest "$(if [ "$GUEST" = yes ]; then echo true; else echo false; fi)"
  entry peakBytes "$(($(get peak) * 1024))"
  entry options "$(json "$OPTIONS")"
  entry built "$(json "$(date -u +%Y-%m-%dT%H:%M:%SZ)")" ''
  echo '}'
}

do_archive() {
  release=$(get release)
  rm -rf "$BUILD/pack"
  mkdir -p "$BUILD/pack" "$BUILD/out"
  # Linked, not copied: the same file system, and no byte more.
  cp -al "$BUILD/stage/vmlinuz" "$BUILD/stage/System.map" "$BUILD/stage/config" "$BUILD/stage/initrd" "$BUILD/pack/"
  cp -al "$BUILD/stage/lib/modules" "$BUILD/pack/modules"
  manifest >"$BUILD/pack/manifest.json"
  (
    cd "$BUILD/pack" || exit
    find . -type f | sed 's,^\./,,' | sort | xargs -d '\n' sha256sum
  ) >"$BUILD/sums"
  mv "$BUILD/sums" "$BUILD/pack/SHA256SUMS"
  name=kernel-$release.tar.zst
  tar -C "$BUILD/pack" --sort=name --owner=0 --group=0 --numeric-owner --mode=u=rwX,go=rX \
    --use-compress-program='zstd -T0 -q' -cf "$BUILD/out/$name.part" \
    manifest.json SHA256SUMS System.map config initrd vmlinuz modules || die 'the archive can not be written'
  mv "$BUILD/out/$name.part" "$BUILD/out/$name"
  fact archive "$name"
  fact sha256 "$(checksum_of "$BUILD/out/$name")"
}
