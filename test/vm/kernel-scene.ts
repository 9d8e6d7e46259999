import { mkdir, mkdtemp, readFile, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { expect } from 'vitest';
import { call } from '../support/call.ts';
import { tinyKernel, type TinyKernelOptions } from '../support/tiny-kernel.ts';
import { type Result, type Shell } from '../support/zfsdev.ts';

/** What comes out of a build of the scene's kernel. */
export const archive = 'kernel-6.99.0-test.tar.zst';

/** The options of all builds; the last --zfs counts. */
export const common = ['--config', 'tinyconfig', '--zfs', 'none', '--localversion', '-test'] as const;

/** A kernel small enough for a moment, by a real compiler, through all phases of the pipeline; and a folder for it. */
export class KernelScene {
  readonly #zfsdev: Shell;
  readonly folder: string;
  /** Where archives go. */
  output: string;

  private constructor(zfsdev: Shell, folder: string) {
    this.#zfsdev = zfsdev;
    this.folder = folder;
    this.output = this.at('output');
  }

  static async open(zfsdev: Shell): Promise<KernelScene> {
    return new KernelScene(zfsdev, await mkdtemp(join(tmpdir(), 'zfsdev-kernel-')));
  }

  /** Takes away what builds that failed have left, too. */
  async close(): Promise<void> {
    for (const name of await this.builds()) await rm(this.ofBuild(name), { recursive: true, force: true });
    await rm(this.folder, { recursive: true, force: true });
  }

  at(...names: string[]): string {
    return join(this.folder, ...names);
  }

  /** The folder `tiny`, with the kernel's source. */
  source(options?: TinyKernelOptions): Promise<string> {
    return tinyKernel(this.at('tiny'), options);
  }

  /** Packs a folder of the scene. */
  tarball(path: string): string {
    const file = `${path}.tar.gz`;
    call('tar', '-C', this.folder, '-czf', file, basename(path));
    return file;
  }

  /** Options for a kernel that takes modules, and this source of OpenZFS. */
  async withOpenZfs(file: string): Promise<string[]> {
    const fragment = this.at('modules.config');
    await writeFile(fragment, 'CONFIG_MODULES=y\n');
    return ['--zfs', file, '--fragment', fragment, '--no-guest-options'];
  }

  /** Unpacks the archive that came out; gives the folder. */
  async unpacked(): Promise<string> {
    const target = this.at('unpacked');
    await mkdir(target);
    call('tar', '--zstd', '-C', target, '-xf', join(this.output, archive));
    return target;
  }

  /** All builds that are there, by their names. */
  async builds(): Promise<string[]> {
    const names = await readdir(join(this.#zfsdev.home, 'builds')).catch(() => []);
    return names.filter((name) => name !== '.ccache');
  }

  ofBuild(name: string, ...names: string[]): string {
    return join(this.#zfsdev.home, 'builds', name, ...names);
  }

  async machines(): Promise<string[]> {
    const { instances } = JSON.parse((await this.#zfsdev('list', '--json')).stdout) as {
      instances: { name: string }[];
    };
    return instances.map(({ name }) => name);
  }
}

export async function manifestOf(unpacked: string): Promise<unknown> {
  return JSON.parse(await readFile(join(unpacked, 'manifest.json'), 'utf8'));
}

/** The answer of a command that went well, as JSON. */
export function answerOf(result: Result): Record<string, unknown> {
  expect(result).toMatchObject({ exitCode: 0 });
  return JSON.parse(result.stdout.split('\n').at(-1) ?? '') as Record<string, unknown>;
}

/** A failure that was foreseen, and tells what to do. */
export function expectFailure({ stderr, exitCode }: Result, message: RegExp, code = 1): void {
  expect(stderr).toMatch(message);
  expect(stderr).toContain('next:');
  expect(stderr).not.toMatch(/\n\s+at .*\.js:\d+/);
  expect(exitCode).toBe(code);
}
