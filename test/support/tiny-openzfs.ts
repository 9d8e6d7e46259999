import { chmod, mkdir, rm, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { call } from './call.ts';

/** What can be wrong with a made-up OpenZFS. */
export interface TinyOpenZfsOptions {
  /** A file of it does not compile. */
  readonly broken?: boolean;
}

export const tinyOpenZfsVersion = '2.99.0';

/** OpenZFS's configure, as far as a build calls it: it has to find the kernel that was built, and a compiler for its headers. */
const configure = `#!/bin/sh
for word; do
  case $word in
    --with-config=kernel | --disable-pyzfs) ;;
    --with-linux=*) linux=\${word#*=} ;;
    --with-linux-obj=*) objects=\${word#*=} ;;
    *) echo "configure: error: unrecognized option: $word"; exit 1 ;;
  esac
done
release=$(cat "$objects/include/config/kernel.release") || exit 1
echo "checking kernel source version... $release"
echo '#include <linux/tiny.h>' >conftest.c
gcc -I"$linux/include" -c -o conftest.o conftest.c || exit 1
echo 'checking whether modules can be built... yes'
printf 'LINUX := %s\\nRELEASE := %s\\n' "$linux" "$release" >settings.mk
`;

const makefile = `include settings.mk
.PHONY: all
all: module/spl.ko module/zfs.ko
module/%.ko: module/%.c
	@echo "  CC [M]  $@"
	@gcc -g -I$(LINUX)/include -DRELEASE='"$(RELEASE)"' -c -o $@ $<
`;

/** An object that depmod takes for a module: it offers a symbol. */
const spl = `#include <linux/tiny.h>
static const char offered[] __attribute__((section("__ksymtab_strings"), used)) = "spl_tiny";
int spl_tiny(void) { return TINY; }
`;

/** And one that wants that symbol, and tells what kernel it was compiled for. */
const zfs = `#include <linux/tiny.h>
static const char about[] __attribute__((section(".modinfo"), used)) = "vermagic=" RELEASE;
int spl_tiny(void);
int zfs_tiny(void) { return spl_tiny() + TINY; }
`;

/**
 * Packs a source that is configured and compiled as a release of OpenZFS is, by a real compiler, in a moment; for a kernel of
 * `tinyKernel`. Gives the tarball's path.
 */
export async function tinyOpenZfs(folder: string, { broken }: TinyOpenZfsOptions = {}): Promise<string> {
  const top = `zfs-${tinyOpenZfsVersion}`;
  const files: Record<string, string> = {
    META: `Meta: 1\nName: zfs\nVersion: ${tinyOpenZfsVersion}\nLinux-Maximum: 6.99\nLinux-Minimum: 4.18\n`,
    configure,
    Makefile: makefile,
    'module/spl.c': spl,
    'module/zfs.c': broken ? 'int zfs_tiny(void) { return missing; }\n' : zfs,
  };
  for (const [name, content] of Object.entries(files)) {
    await mkdir(dirname(join(folder, top, name)), { recursive: true });
    await writeFile(join(folder, top, name), content);
  }
  await chmod(join(folder, top, 'configure'), 0o755);
  const file = join(folder, `${top}.tar.gz`);
  call('tar', '-C', folder, '-czf', file, top);
  await rm(join(folder, top), { recursive: true });
  return file;
}
