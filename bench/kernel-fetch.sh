#!/bin/sh
# Called by provision/kernel-enter.sh in a root file system of the kernel's tools: leaves the archives of Debian's newest source
# of the kernel, and of OpenZFS, in /build.
set -eu
cd /build
exec >log 2>&1
apt-get -o APT::Sandbox::User=root -o Acquire::Retries=3 -q update
package=$(apt-cache depends linux-source | sed -n 's/^ *Depends: \(linux-source-[^ ]*\).*/\1/p' | head -n 1)
apt-get -o APT::Sandbox::User=root -o Acquire::Retries=3 -q download "$package"
dpkg-deb --fsys-tarfile "$package"_*.deb | tar -xO "./usr/src/$package.tar.xz" >linux.tar.xz.part
mv linux.tar.xz.part linux.tar.xz
apt-get -o APT::Sandbox::User=root -o Acquire::Retries=3 -q download zfs-dkms
dpkg-deb -x zfs-dkms_*.deb dkms
tar -C dkms/usr/src -cf zfs.tar "$(ls dkms/usr/src)"
