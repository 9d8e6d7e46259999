# shellcheck shell=sh disable=SC2154
# Phase source of kernel-build.sh: a kernel's tree in $BUILD/src, and OpenZFS's source in in/, packed as it came. The host puts
# what it has itself there: source.tar (a folder, too) and zfs.tar. All that comes from a network comes now: a network that
# is gone two hours later, or a source that is none, ends no build then.

# apt's own unprivileged user is no user where there is only one.
apt() { apt-get -o APT::Sandbox::User=root -o Acquire::Retries=3 -q "$@"; }

# Downloads a package of the distribution, whose signature apt checks, into $BUILD/fetch; sets $package_file.
fetch_package() {
  rm -rf "$BUILD/fetch"
  mkdir -p "$BUILD/fetch"
  saying "fetching $1"
  # A list that is days old may name what the archive has replaced since.
  (cd "$BUILD/fetch" && { apt download "$1" || { apt update && apt download "$1"; }; }) ||
    die "the package $1 can not be fetched: is there a network?"
  package_file=$(find "$BUILD/fetch" -name '*.deb')
}

refresh_packages() {
  [ ! -f "$BUILD/done/listed" ] || return 0
  saying 'fetching the package lists'
  apt update || die 'the package lists can not be fetched: is there a network?'
  : >"$BUILD/done/listed"
}

# The package behind the name $1, which stands for the newest one that begins with $2.
newest_package() {
  apt-cache depends "$1" | sed -n "s/^ *Depends: \($2[^ ]*\).*/\1/p" | head -n 1
}

checksum_of() { sha256sum "$1" | cut -d ' ' -f 1; }

# An empty folder $1 for what is unpacked from $2.
begin_unpacking() {
  saying "unpacking $2"
  rm -rf "$1"
  mkdir -p "$1"
}

damaged() { die "the archive is damaged, or not all of it is there: $1"; }

source_from_debian() {
  refresh_packages
  package=$(newest_package linux-source linux-source-)
  [ -n "$package" ] || die 'the distribution has no package linux-source'
  fetch_package "$package"
  put source "Debian $package $(dpkg-deb -f "$package_file" Version)"
  put source-sha256 "$(checksum_of "$package_file")"
  begin_unpacking "$BUILD/src.part" "$package"
  # Piped through, so that the packed source never lies on the disk twice.
  dpkg-deb --fsys-tarfile "$package_file" | tar -xO "./usr/src/$package.tar.xz" | unpack_tree - -J ||
    die "$package can not be unpacked"
}

source_from_url() {
  mkdir -p "$BUILD/fetch"
  saying "fetching $SOURCE"
  # A server that falls silent is given up after two minutes.
  curl --fail --location --silent --show-error --retry 3 --connect-timeout 30 --speed-limit 1000 --speed-time 120 \
    --output "$BUILD/fetch/source" -- "$SOURCE" || die "$SOURCE can not be fetched: is there a network, and is the address right?"
  sum=$(checksum_of "$BUILD/fetch/source")
  if [ -n "$SOURCE_SHA256" ] && [ "$sum" != "$SOURCE_SHA256" ]; then
    rm -rf "$BUILD/fetch"
    die "the checksum of $SOURCE is wrong: $sum instead of $SOURCE_SHA256"
  fi
  put source "$SOURCE"
  put source-sha256 "$sum"
  begin_unpacking "$BUILD/src.part" "$SOURCE"
  unpack_tree "$BUILD/fetch/source" || damaged "$SOURCE"
}

source_from_git() {
  saying "fetching $SOURCE_REF from $SOURCE"
  git init -q "$BUILD/src.part"
  # Nobody is there to be asked for a password.
  GIT_TERMINAL_PROMPT=0 git -C "$BUILD/src.part" -c http.lowSpeedLimit=1000 -c http.lowSpeedTime=120 \
    fetch -q --depth 1 -- "$SOURCE" "$SOURCE_REF" </dev/null ||
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
      # The host has looked whether it is the one that was asked for.
      checksum_of "$BUILD/in/source.tar" >"$BUILD/sum" &
      begin_unpacking "$BUILD/src.part" "$SOURCE"
      unpack_tree "$BUILD/in/source.tar" || damaged "$SOURCE"
      wait "$!"
      put source-sha256 "$(cat "$BUILD/sum")"
      ;;
    *) die "unknown kind of source: $SOURCE_KIND" ;;
  esac
  # With the packed source, which is gone in a moment.
  measure_peak
  rm -rf "$BUILD/fetch"
  for file in Makefile Kconfig scripts/kconfig; do
    [ -e "$BUILD/src.part/$file" ] || die "this is not the source of a kernel, it has no $file: $(get source)"
  done
  mv "$BUILD/src.part" "$BUILD/src"
  # A tree that was built in before would keep what it was built with.
  if [ -e "$BUILD/src/.config" ] || [ -e "$BUILD/src/include/generated" ]; then kernel_make mrproper; fi
  put kernel "$(kernel_make -s kernelversion)"
  fact source "$(get source)"
  fact kernel "$(get kernel)"
  if [ "$ZFS" != none ]; then fetch_zfs; fi
}

# Leaves OpenZFS's source in in/, as it came: a release's archive, or what the distribution compiles itself. Looks whether it
# is one, and may fit.
fetch_zfs() {
  if [ "$ZFS" != archive ]; then
    refresh_packages
    fetch_package zfs-dkms
    mv "$package_file" "$BUILD/in/zfs.deb"
  fi
  unpack_zfs
  for file in META configure; do
    [ -f "$BUILD/zfs/$file" ] || die "this is not the source of a release of OpenZFS, it has no $file: $ZFS_NAME"
  done
  put zfs-version "$(sed -n 's/^Version: *//p' "$BUILD/zfs/META")"
  most=$(sed -n 's/^Linux-Maximum: *//p' "$BUILD/zfs/META")
  rm -rf "$BUILD/zfs"
  newer=$(printf '%s\n' "$most" "$(get kernel | cut -d . -f 1,2)" | sort -V | tail -n 1)
  if [ -n "$most" ] && [ "$newer" != "$most" ]; then
    fact notice "OpenZFS $(get zfs-version) is made for kernels up to $most: it may not compile for $(get kernel)"
  fi
}

# Unpacks what fetch_zfs left into $BUILD/zfs.
unpack_zfs() {
  rm -rf "$BUILD/zfs" "$BUILD/fetch"
  if [ "$ZFS" = archive ]; then
    put zfs-sha256 "$(checksum_of "$BUILD/in/zfs.tar")"
    begin_unpacking "$BUILD/zfs" "$ZFS_NAME"
    tar -C "$BUILD/zfs" --strip-components=1 --no-same-owner -xf "$BUILD/in/zfs.tar" || damaged "$ZFS_NAME"
  else
    put zfs-sha256 "$(checksum_of "$BUILD/in/zfs.deb")"
    mkdir -p "$BUILD/fetch"
    dpkg-deb -x "$BUILD/in/zfs.deb" "$BUILD/fetch/root" || die "OpenZFS's package can not be unpacked"
    mv "$BUILD"/fetch/root/usr/src/zfs-* "$BUILD/zfs"
    rm -rf "$BUILD/fetch"
  fi
  if [ -f "$BUILD/zfs/configure" ]; then chmod +x "$BUILD/zfs/configure"; fi
}
