# shellcheck shell=sh disable=SC2154
# Phase source of kernel-build.sh: a kernel's tree in $BUILD/src, and later OpenZFS's in $BUILD/zfs. The host puts what it has
# itself into in/: source.tar (a folder, too) and zfs.tar.

# Downloads a package of the distribution, whose signature apt checks, into $BUILD/fetch; sets $package_file.
fetch_package() {
  rm -rf "$BUILD/fetch"
  mkdir -p "$BUILD/fetch"
  # apt's own unprivileged user is no user where there is only one.
  (
    cd "$BUILD/fetch"
    apt-get -o APT::Sandbox::User=root -o Acquire::Retries=3 -q download "$1"
  ) || die "the package $1 can not be fetched: is there a network?"
  package_file=$(find "$BUILD/fetch" -name '*.deb')
}

refresh_packages() {
  [ ! -f "$BUILD/done/listed" ] || return 0
  apt-get -o APT::Sandbox::User=root -o Acquire::Retries=3 -q update ||
    die 'the package lists can not be fetched: is there a network?'
  : >"$BUILD/done/listed"
}

# The package behind the name $1, which stands for the newest one that begins with $2.
newest_package() {
  apt-cache depends "$1" | sed -n "s/^ *Depends: \($2[^ ]*\).*/\1/p" | head -n 1
}

checksum_of() { sha256sum "$1" | cut -d ' ' -f 1; }

# Unpacks the archive $1 into the folder $2, without its one top folder.
unpack_archive() {
  rm -rf "$2"
  mkdir -p "$2"
  tar -C "$2" --strip-components=1 --no-same-owner -xf "$1" ||
    die "the archive is damaged, or not all of it is there: ${3:-$1}"
}

source_from_debian() {
  refresh_packages
  package=$(newest_package linux-source linux-source-)
  [ -n "$package" ] || die 'the distribution has no package linux-source'
  fetch_package "$package"
  put source "Debian $package $(dpkg-deb -f "$package_file" Version)"
  put source-sha256 "$(checksum_of "$package_file")"
  # Piped through, so that the packed source never lies on the disk twice.
  mkdir -p "$BUILD/src.part"
  dpkg-deb --fsys-tarfile "$package_file" | tar -xO "./usr/src/$package.tar.xz" |
    tar -C "$BUILD/src.part" --strip-components=1 --no-same-owner -xJf - || die "$package can not be unpacked"
}

source_from_url() {
  mkdir -p "$BUILD/fetch"
  curl --fail --location --silent --show-error --retry 3 --connect-timeout 30 --output "$BUILD/fetch/source" \
    -- "$SOURCE" || die "$SOURCE can not be fetched: is there a network, and is the address right?"
  sum=$(checksum_of "$BUILD/fetch/source")
  if [ -n "$SOURCE_SHA256" ] && [ "$sum" != "$SOURCE_SHA256" ]; then
    rm -rf "$BUILD/fetch"
    die "the checksum of $SOURCE is wrong: $sum instead of $SOURCE_SHA256"
  fi
  put source "$SOURCE"
  put source-sha256 "$sum"
  unpack_archive "$BUILD/fetch/source" "$BUILD/src.part" "$SOURCE"
}

source_from_git() {
  git init -q "$BUILD/src.part"
  git -C "$BUILD/src.part" fetch -q --depth 1 -- "$SOURCE" "$SOURCE_REF" ||
    die "git can not fetch $SOURCE_REF from $SOURCE: is there such a ref, and a network?"
  git -C "$BUILD/src.part" -c advice.detachedHead=false checkout -q FETCH_HEAD
  put source "$SOURCE $(git -C "$BUILD/src.part" rev-parse HEAD)"
  rm -rf "$BUILD/src.part/.git"
}

do_source() {
  rm -rf "$BUILD/src" "$BUILD/src.part"
  case $SOURCE_KIND in
    debian) source_from_debian ;;
    url) source_from_url ;;
    git) source_from_git ;;
    archive)
      put source "$SOURCE"
      put source-sha256 "$(checksum_of "$BUILD/in/source.tar")"
      unpack_archive "$BUILD/in/source.tar" "$BUILD/src.part" "$SOURCE"
      rm -f "$BUILD/in/source.tar"
      ;;
    *) die "unknown kind of source: $SOURCE_KIND" ;;
  esac
  rm -rf "$BUILD/fetch"
  for file in Makefile Kconfig scripts/kconfig; do
    [ -e "$BUILD/src.part/$file" ] || die "this is not the source of a kernel, it has no $file: $(get source)"
  done
  mv "$BUILD/src.part" "$BUILD/src"
  # A tree that was built in before would keep what it was built with.
  if [ -e "$BUILD/src/.config" ] || [ -e "$BUILD/src/include/generated" ]; then kernel_make mrproper; fi
  trim
  fact source "$(get source)"
  fact kernel "$(kernel_make -s kernelversion)"
}

# Leaves OpenZFS's source in $BUILD/zfs: a release's archive, or what the distribution compiles itself.
fetch_zfs() {
  rm -rf "$BUILD/zfs"
  if [ "$ZFS" = archive ]; then
    put zfs-sha256 "$(checksum_of "$BUILD/in/zfs.tar")"
    unpack_archive "$BUILD/in/zfs.tar" "$BUILD/zfs" 'the source of OpenZFS'
  else
    refresh_packages
    fetch_package zfs-dkms
    put zfs-sha256 "$(checksum_of "$package_file")"
    dpkg-deb -x "$package_file" "$BUILD/fetch/root"
    mv "$BUILD"/fetch/root/usr/src/zfs-* "$BUILD/zfs"
    rm -rf "$BUILD/fetch"
  fi
  for file in META configure; do
    [ -f "$BUILD/zfs/$file" ] || die "this is not the source of a release of OpenZFS: it has no $file"
  done
  chmod +x "$BUILD/zfs/configure"
  put zfs-version "$(sed -n 's/^Version: *//p' "$BUILD/zfs/META")"
}
