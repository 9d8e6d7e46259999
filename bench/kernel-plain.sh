#!/bin/sh
# Called by provision/kernel-enter.sh as the pipeline's own script is: what somebody types who builds the same kernel by hand.
set -eu
cd /build
# shellcheck source=/dev/null
. ./settings.sh
exec >log 2>&1
compiler=gcc
if [ -n "${CCACHE_DIR:-}" ]; then compiler='ccache gcc'; fi
image=bzImage
if [ "$(uname -m)" = aarch64 ]; then image=Image; fi
mkdir src
tar -C src --strip-components=1 --no-same-owner -xf linux.tar.xz
cd src
make CC="$compiler" "$CONFIG"
scripts/config --set-str LOCALVERSION -bench --disable LOCALVERSION_AUTO
make CC="$compiler" olddefconfig
if grep -q '^CONFIG_MODULES=y' .config; then
  make -j "$JOBS" CC="$compiler" "$image" modules
  make -j "$JOBS" CC="$compiler" INSTALL_MOD_PATH=/build/stage INSTALL_MOD_STRIP=1 modules_install
else
  make -j "$JOBS" CC="$compiler" "$image"
fi
