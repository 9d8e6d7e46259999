import { expect } from 'vitest';
import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { cp, mkdir, readFile, utimes, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import type { ExpectedCall, FakeProgram } from '../../fakes/programs.ts';
import { provision, ScriptHouse, type Ended } from './support.ts';

const settings = {
  SOURCE_KIND: 'archive',
  SOURCE: '/there/linux.tar',
  SOURCE_REF: '',
  SOURCE_SHA256: '',
  CONFIG: 'tinyconfig',
  CONFIG_NAME: 'tinyconfig',
  GUEST: 'no',
  LOCALVERSION: '-test',
  ZFS: 'none',
  ZFS_NAME: 'none',
  JOBS: 1,
  NEEDED_KIB: 1,
  BUILD_TIME: 'then',
  TRIM: 'no',
  TOOLS: 'there',
  OPTIONS: '{}',
};

const real =
  'awk basename cat chmod cp cut date df dirname du env find flock grep gzip head mkdir mv rm sed sha256sum sort tail tar tee tr xargs';

export const none: FakeProgram = { calls: [] };

/** The source of a kernel, as far as the scripts look at it. */
export const tree = { Makefile: '', Kconfig: '', 'scripts/kconfig/conf.c': '', 'usr/gen_init_cpio.c': '' };

/** A place in which `kernel-build.sh` runs phases, where the compiler and the kernel are played. */
export class KernelHouse {
  readonly house: ScriptHouse;
  readonly build: string;

  private constructor(house: ScriptHouse) {
    this.house = house;
    this.build = house.at('build');
  }

  static async open(): Promise<KernelHouse> {
    const house = await ScriptHouse.open();
    await mkdir(join(house.at('build'), 'in/fragments'), { recursive: true });
    await cp(join(provision, 'kernel'), house.at('kernel'), { recursive: true });
    // Where there is no zstd, any packer will do.
    const pack = house.at('kernel/pack.sh');
    await writeFile(pack, (await readFile(pack, 'utf8')).replace('zstd -T0 -q', 'gzip'));
    const place = new KernelHouse(house);
    await place.put({ 'done/jobs.value': '1\n' });
    return place;
  }

  close(): Promise<void> {
    return this.house.close();
  }

  /** A file of the build. */
  path(...parts: readonly string[]): string {
    return join(this.build, ...parts);
  }

  has(name: string): boolean {
    return existsSync(this.path(name));
  }

  run(phase: string, ...jobs: string[]): Promise<Ended> {
    return this.house.run('kernel-build.sh', [phase, ...jobs], { ZFSDEV_BUILD: this.build });
  }

  /** A call of the kernel's own make. */
  kernel(targets: readonly string[], more: Partial<ExpectedCall> = {}): ExpectedCall {
    const fixed = ['KBUILD_BUILD_USER=zfsdev', 'KBUILD_BUILD_HOST=zfsdev', 'KBUILD_BUILD_TIMESTAMP=then'];
    const argv = ['-C', this.path('src'), 'ARCH=x86_64', 'CC=gcc', ...fixed, 'LOCALVERSION=', ...targets];
    return { argv, ...more };
  }

  /** Files of the build that a call leaves behind. */
  leaves(files: Readonly<Record<string, string>>): Pick<ExpectedCall, 'leaves'> {
    return {
      leaves: Object.fromEntries(Object.entries(files).map(([name, text]) => [this.path(name), text])),
    };
  }

  /** What a phase calls, where the compiler and the kernel are played. */
  programs(): Record<string, FakeProgram> {
    const modules = 'stage/lib/modules/6.99.0-test';
    const install = [`INSTALL_MOD_PATH=${this.path('stage')}`, 'INSTALL_MOD_STRIP=1', 'DEPMOD=true'];
    const initCpio = this.path('src/usr/gen_init_cpio.c');
    const object = { 'src/kernel/one.o': 'object', 'src/kernel/one.ko': 'module' };
    const image = { 'src/arch/x86/boot/bzImage': 'kernel', 'src/System.map': 'symbols' };
    return {
      uname: { calls: [{ argv: ['-m'], stdout: 'x86_64\n' }] },
      sync: { calls: [{ argv: ['-f', this.build] }] },
      make: {
        calls: [
          this.kernel(['-s', 'kernelversion'], { stdout: '6.99.0\n' }),
          // Only what is configured a second time has something to be cleaned of.
          this.kernel(['mrproper'], { times: 1 }),
          this.kernel(
            ['-j', '1', 'tinyconfig'],
            this.leaves({ 'src/.config': 'CONFIG_MODULES=y\nCONFIG_LOCALVERSION="-test"\n' }),
          ),
          this.kernel(['-j', '1', 'olddefconfig']),
          this.kernel(
            ['include/config/kernel.release'],
            this.leaves({ 'src/include/config/kernel.release': '6.99.0-test' }),
          ),
          this.kernel(['-j', '1', 'bzImage', 'modules'], this.leaves({ ...object, ...image })),
          this.kernel(
            ['-j', '1', ...install, 'modules_install'],
            this.leaves({ [`${modules}/one.ko`]: 'module', [`${modules}/modules.order`]: '' }),
          ),
        ],
      },
      gcc: {
        calls: [
          { argv: ['--version'], stdout: 'gcc 14\nmore\n' },
          { argv: ['-O2', '-o', this.path('cost'), initCpio] },
          {
            argv: ['-O1', '-o', this.path('gen_init_cpio'), initCpio],
            // It packs what its list names; here the list is as good.
            leaves: { [this.path('gen_init_cpio')]: { copyOf: '/bin/cat' } },
          },
        ],
      },
      depmod: {
        calls: [{ argv: ['-b', this.path('stage'), '-F', this.path('stage/System.map'), '6.99.0-test'] }],
      },
      modprobe: {
        calls: [
          {
            argv: ['-d', this.path('stage'), '--set-version', '6.99.0-test', '--show-depends', /./],
            exitCode: 1,
          },
        ],
      },
      ...Object.fromEntries(
        ['ar', 'bc', 'bison', 'busybox', 'flex', 'ld', 'nm', 'objcopy', 'strip', 'xz', 'zstd'].map((name) => [
          name,
          none,
        ]),
      ),
    };
  }

  async put(files: Readonly<Record<string, string>>): Promise<void> {
    for (const [name, text] of Object.entries(files)) {
      await mkdir(dirname(this.path(name)), { recursive: true });
      await writeFile(this.path(name), text);
    }
  }

  /** Makes it a build that has run for longer than what is young enough to be begun anew. */
  async grow(): Promise<void> {
    const before = Date.now() / 1000 - 600;
    await utimes(this.path('settings.sh'), before, before);
  }

  /** Packs files as an archive with one folder at its top. */
  async archive(name: string, files: Readonly<Record<string, string>>): Promise<void> {
    for (const [file, text] of Object.entries(files)) {
      await mkdir(dirname(this.house.at('tree/top', file)), { recursive: true });
      await writeFile(this.house.at('tree/top', file), text);
    }
    expect(spawnSync('tar', ['-C', this.house.at('tree'), '-cf', this.path(name), 'top']).status).toBe(0);
  }

  async play(
    asked: Readonly<Record<string, string | number>> = {},
    fakes: Readonly<Record<string, FakeProgram>> = {},
  ): Promise<void> {
    const lines = Object.entries({ ...settings, ...asked }).map(([key, value]) => `${key}='${value}'\n`);
    await writeFile(this.path('settings.sh'), lines.join(''));
    const played = { ...this.programs(), ...fakes };
    await this.house.play(
      played,
      real.split(' ').filter((name) => !(name in played)),
    );
  }
}
