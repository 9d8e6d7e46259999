import { chmod, mkdir, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';

/** What can be wrong with a made-up kernel. */
export interface TinyKernelOptions {
  /** A file of it does not compile. */
  readonly broken?: boolean;
  /** It compiles until somebody ends it. */
  readonly endless?: boolean;
  /** It fills its disk; the next time it compiles until somebody ends it; then it compiles. For machines only. */
  readonly unlucky?: boolean;
  /** It has no Kconfig, as what is no kernel. */
  readonly noKernel?: boolean;
}

const makefile = `# A kernel's make, as far as a build calls it.
CC ?= gcc
image := $(if $(filter arm64,$(ARCH)),arch/arm64/boot/Image,arch/x86/boot/bzImage)
.PHONY: kernelversion tinyconfig defconfig olddefconfig include/config/kernel.release modules modules_install mrproper
kernelversion:
	@echo 6.99.0
tinyconfig defconfig:
	printf 'CONFIG_TINY=y\\n# CONFIG_OTHER is not set\\n' >.config
olddefconfig:
	sh scripts/kconfig/olddefconfig
include/config/kernel.release:
	mkdir -p include/config
	echo "6.99.0$$(sed -n 's/^CONFIG_LOCALVERSION="\\(.*\\)"/\\1/p' .config)" >$@
bzImage Image: $(image)
objects := kernel/one.o kernel/two.o kernel/three.o
%.o: %.c
	@echo "  CC      $@"
	@$(CC) -c -o $@ $<
$(image): $(objects)
	mkdir -p $(dir $@)
	cat $(objects) >$@
	echo 0 T start >System.map
modules:
	:
modules_install: folder = $(INSTALL_MOD_PATH)/lib/modules/$(shell cat include/config/kernel.release)
modules_install:
	mkdir -p $(folder)/kernel
	echo module >$(folder)/kernel/tiny.txt
	: >$(folder)/modules.order
	: >$(folder)/modules.builtin
mrproper:
	rm -rf .config include/config $(objects)
`;

/** Keeps what Kconfig knows, and of it only what has what it depends on: NEEDS_OTHER goes without OTHER. */
const olddefconfig = `known=$(sed -n 's/^config //p' Kconfig)
for name in $known; do
  line=$(grep -E "^(# )?CONFIG_$name[ =]" .config | tail -n 1)
  [ "$name" != NEEDS_OTHER ] || grep -q '^CONFIG_OTHER=y' .config || line=''
  [ -n "$line" ] || line="# CONFIG_$name is not set"
  echo "$line"
done >.config.new
mv .config.new .config
`;

const initCpio = `#include <stdio.h>
int main(int count, char **words) {
  int c;
  FILE *list = count > 1 ? fopen(words[1], "r") : NULL;
  if (!list) return 1;
  while ((c = getc(list)) != EOF) putchar(c);
  return 0;
}
`;

/**
 * What an unlucky kernel does before it compiles; the disk is filled to its last byte, what is kept for root included. Its
 * files lie beside the tree: what was written there last before a machine is killed is made again.
 */
const misfortunes = `if [ ! -e ../filler ]; then
  n=0
  for size in 1G 64M 4M; do
    while fallocate -l $size ../filler.$n; do n=$((n + 1)); done
  done
  cat /dev/zero >../filler
elif [ ! -e ../cut-off ]; then
  rm -f ../filler.*
  : >../filler
  : >../cut-off
  sync
  echo cut off here
  sleep 1000
fi
:
`;

function makefileOf({ endless, unlucky }: TinyKernelOptions): string {
  if (endless) return makefile.replace('@$(CC) -c', '@sleep 1000; $(CC) -c');
  return unlucky
    ? `.NOTPARALLEL:\n${makefile.replace('@$(CC) -c', '@sh scripts/misfortunes; $(CC) -c')}`
    : makefile;
}

/** Makes a tree that is built as a kernel is, by a real compiler, in a moment. */
export async function tinyKernel(folder: string, options: TinyKernelOptions = {}): Promise<string> {
  const third = options.broken ? 'int three(void) { return missing; }\n' : 'int three(void) { return 3; }\n';
  const files: Record<string, string> = {
    Makefile: makefileOf(options),
    Kconfig: ['TINY', 'OTHER', 'NEEDS_OTHER', 'LOCALVERSION', 'LOCALVERSION_AUTO', 'MODULES']
      .map((name) => `config ${name}\n\tbool\n`)
      .join(''),
    'scripts/kconfig/olddefconfig': olddefconfig,
    'scripts/misfortunes': misfortunes,
    'usr/gen_init_cpio.c': initCpio,
    'include/linux/tiny.h': '#define TINY 1\n',
    'kernel/one.c': 'int one(void) { return 1; }\n',
    'kernel/two.c': 'int two(void) { return 2; }\n',
    'kernel/three.c': third,
  };
  if (options.noKernel) delete files['Kconfig'];
  for (const [name, content] of Object.entries(files)) {
    await mkdir(dirname(join(folder, name)), { recursive: true });
    await writeFile(join(folder, name), content);
  }
  await chmod(folder, 0o755);
  return folder;
}
