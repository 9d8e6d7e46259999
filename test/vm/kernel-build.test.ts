import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, mkdtemp, readFile, readdir, rm, truncate, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { fileServer } from '../fakes/file-server.ts';
import { smallFilesystem } from '../support/filesystem.ts';
import { ownHome } from '../support/home.ts';
import { machinesOf } from '../support/machines.ts';
import { tinyKernel, type TinyKernelOptions } from '../support/tiny-kernel.ts';
import { type Result } from '../support/zfsdev.ts';

// A kernel small enough for a moment, by a real compiler, through all phases of the pipeline.

const zfsdev = ownHome();
const archive = 'kernel-6.99.0-test.tar.zst';
let folder: string;
let output: string;

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'zfsdev-kernel-'));
  output = join(folder, 'output');
});

afterEach(async () => {
  const left = (await readdir(join(zfsdev.home, 'builds')).catch(() => [])).filter(
    (name) => name !== '.ccache',
  );
  await Promise.all(
    left.map((name) => rm(join(zfsdev.home, 'builds', name), { recursive: true, force: true })),
  );
  await rm(folder, { recursive: true, force: true });
});

const common = ['--config', 'tinyconfig', '--zfs', 'none', '--localversion', '-test'];

function words(source: string, ...more: string[]): string[] {
  return ['build-kernel', '--builder', 'chroot', '--source', source, '--output', output, ...common, ...more];
}

async function source(options?: TinyKernelOptions): Promise<string> {
  return tinyKernel(join(folder, 'tiny'), options);
}

function tarball(path: string): string {
  const file = join(folder, 'tiny.tar.gz');
  expect(spawnSync('tar', ['-C', folder, '-czf', file, path.slice(folder.length + 1)]).status).toBe(0);
  return file;
}

async function builds(): Promise<string[]> {
  return (await readdir(join(zfsdev.home, 'builds'))).filter((name) => name !== '.ccache');
}

function expectFailure({ stderr, exitCode }: Result, message: RegExp, code = 1): void {
  expect(stderr).toMatch(message);
  expect(stderr).toContain('next:');
  expect(stderr).not.toMatch(/\n\s+at .*\.js:\d+/);
  expect(exitCode).toBe(code);
}

describe('a kernel built in a root file system', () => {
  it('comes out as one archive that is whole, and leaves nothing else', async () => {
    const result = await zfsdev(...words(await source(), '--json'));
    expect(result).toMatchObject({ exitCode: 0 });
    const answer = JSON.parse(result.stdout.split('\n').at(-1) ?? '') as Record<string, unknown>;
    expect(answer).toMatchObject({
      archive: join(output, archive),
      release: '6.99.0-test',
      usedAfterBytes: 0,
    });
    expect(answer['freedBytes']).toBeGreaterThan(100 * 2 ** 20);
    expect((await readdir(output)).sort()).toEqual(['kernel-6.99.0-test.log', archive]);
    expect(await builds()).toEqual([]);
    const unpacked = join(folder, 'unpacked');
    await mkdir(unpacked);
    expect(spawnSync('tar', ['--zstd', '-C', unpacked, '-xf', join(output, archive)]).status).toBe(0);
    const check = spawnSync('sha256sum', ['-c', '--strict', 'SHA256SUMS'], {
      cwd: unpacked,
      encoding: 'utf8',
    });
    expect(check).toMatchObject({ status: 0 });
    expect(JSON.parse(await readFile(join(unpacked, 'manifest.json'), 'utf8'))).toMatchObject({
      release: '6.99.0-test',
      localversion: '-test',
      config: 'tinyconfig',
      zfs: '',
    });
    expect(await readFile(join(unpacked, 'config'), 'utf8')).toContain('CONFIG_LOCALVERSION="-test"');
  });

  it('comes from a tarball with the right checksum, with the options of a fragment', async () => {
    const file = tarball(await source());
    const sum = spawnSync('sha256sum', [file], { encoding: 'utf8' }).stdout.slice(0, 64);
    const fragment = join(folder, 'more.config');
    await writeFile(fragment, 'CONFIG_OTHER=y\nCONFIG_NEEDS_OTHER=y\n');
    const result = await zfsdev(...words(file, '--sha256', sum, '--fragment', fragment));
    expect(result).toMatchObject({ exitCode: 0 });
    const { stdout } = spawnSync('tar', ['--zstd', '-xOf', join(output, archive), 'config'], {
      encoding: 'utf8',
    });
    expect(stdout).toContain('CONFIG_NEEDS_OTHER=y');
  });

  it('has nothing to go on with if there was no build', async () => {
    expectFailure(await zfsdev(...words(await source(), '--resume')), /no build of this kernel/, 4);
  });
});

describe('a build that fails', () => {
  it('for a wrong checksum makes nothing', async () => {
    const file = tarball(await source());
    expectFailure(await zfsdev(...words(file, '--sha256', 'a'.repeat(64))), /checksum .* is wrong/);
    expect(await builds()).toEqual([]);
  });

  it('for a tarball that was cut off says so', async () => {
    const file = tarball(await source());
    await truncate(file, 600);
    expectFailure(await zfsdev(...words(file)), /damaged, or not all of it is there: .*tiny\.tar\.gz/);
  });

  it('for a source that is no kernel names what it lacks', async () => {
    expectFailure(
      await zfsdev(...words(await source({ noKernel: true }))),
      /not the source of a kernel.*Kconfig/,
    );
  });

  it('for options that do not survive names each, with the reason', async () => {
    const fragment = join(folder, 'bad.config');
    await writeFile(fragment, 'CONFIG_NEEDS_OTHER=y\nCONFIG_NO_SUCH_THING=y\n');
    const result = await zfsdev(...words(await source(), '--fragment', fragment));
    expectFailure(result, /CONFIG_NEEDS_OTHER \(asked for y, and it is n/);
    expect(result.stderr).toMatch(/CONFIG_NO_SUCH_THING \(this kernel knows no such option/);
  });

  it('for a fragment with a line that is no option shows the line', async () => {
    const fragment = join(folder, 'bad.config');
    await writeFile(fragment, 'OTHER=y\n');
    expectFailure(await zfsdev(...words(await source(), '--fragment', fragment)), /no option: OTHER=y/);
  });

  it("for the compiler shows the compiler's words and the whole log's file", async () => {
    const result = await zfsdev(...words(await source({ broken: true })));
    expectFailure(result, /the kernel does not compile/);
    expect(result.stderr).toContain('error: ‘missing’ undeclared');
    const log = /the whole log: (\S+)/.exec(result.stderr)?.[1] ?? '';
    expect(await readFile(log, 'utf8')).toContain('kernel/three.c');
    expect(result.stderr).toContain('--resume');
  });

  it('for an address that nobody answers at says that the network may be gone', async () => {
    const result = await zfsdev(...words('http://127.0.0.1:9/linux.tar.xz'));
    expectFailure(result, /http:\/\/127\.0\.0\.1:9\/linux\.tar\.xz can not be fetched: is there a network/);
  });

  it('for a ref that is not there names the ref', async () => {
    const path = await source();
    const git = (...args: string[]): void =>
      void expect(
        spawnSync('git', ['-C', path, '-c', 'user.name=a', '-c', 'user.email=a@b', ...args]),
      ).toMatchObject({
        status: 0,
      });
    git('init', '-q', '-b', 'main');
    git('add', '.');
    git('commit', '-q', '-m', 'a kernel');
    const port = await freePort();
    const options = ['--export-all', '--reuseaddr', '--listen=127.0.0.1', `--port=${port}`];
    const daemon = spawn('git', ['daemon', ...options, `--base-path=${folder}`, folder], { stdio: 'ignore' });
    try {
      const url = `git://127.0.0.1:${port}/tiny`;
      expectFailure(await zfsdev(...words(`${url}#v9.9`)), /git can not fetch v9\.9 from/);
      expect(await zfsdev(...words(`${url}#main`))).toMatchObject({ exitCode: 0 });
    } finally {
      daemon.kill();
      await once(daemon, 'close');
    }
  });

  it('for a full disk where the archive goes keeps what is built, for --resume', async () => {
    const small = await smallFilesystem(16 * 2 ** 20, join(zfsdev.home, 'images'));
    const path = await source();
    try {
      await small.fillUpTo(0);
      const target = output;
      output = small.home;
      expectFailure(await zfsdev(...words(path)), /can't be written.*ENOSPC|no space left/i, 3);
      expect((await readdir(small.home)).filter((name) => name.includes('kernel'))).toEqual([]);
      output = target;
    } finally {
      await small.remove();
    }
    expect(await zfsdev(...words(path, '--resume'))).toMatchObject({ exitCode: 0 });
    const log = await readFile(join(output, 'kernel-6.99.0-test.log'), 'utf8');
    expect(log.match(/CC {6}kernel\/one\.o/g)).toHaveLength(1);
  });

  it('for an output that is no folder makes nothing', async () => {
    await writeFile(output, 'a file where a folder is wanted');
    expectFailure(await zfsdev(...words(await source())), /the archive can't go to .*output/);
    expect(await builds()).toEqual([]);
  });
});

describe('a kernel built in a machine', () => {
  // One machine, since its tools alone take minutes to install under emulation.
  it('stays for a look when its disk runs full and when it is killed, goes on, and is gone at the end', async () => {
    const source = await tinyKernel(join(folder, 'tiny'), { unlucky: true });
    const words = ['build-kernel', '--source', source, '--output', output, ...common];
    const full = await zfsdev(...words);
    expectFailure(full, /the kernel does not compile: the disk is full/, 3);
    expect(full.stderr).toContain('--resume');
    const [name = ''] = await machines();
    expect(name).toMatch(/^kernel-build-/);
    expectFailure(await zfsdev(...words), /has an earlier build of this kernel/, 4);

    const build = zfsdev.begin(...words, '--resume', '--verbose');
    await build.until('cut off here');
    process.kill(Number(await readFile(join(zfsdev.home, 'instances', name, 'qemu.pid'), 'utf8')), 'SIGKILL');
    const killed = await build.result;
    expectFailure(killed, /lost|closed|ended/i);
    expect(killed.stderr).toContain(`zfsdev delete --force ${name}`);

    const result = await zfsdev(...words, '--resume', '--delete-after', '--json');
    expect(result).toMatchObject({ exitCode: 0 });
    const answer = JSON.parse(result.stdout.split('\n').at(-1) ?? '') as Record<string, unknown>;
    expect(answer).toMatchObject({ release: '6.99.0-test', usedAfterBytes: 0 });
    // What the machine wrote: its tools are part of the image.
    expect(answer['freedBytes']).toBeGreaterThan(2 ** 20);
    expect((await readdir(output)).sort()).toEqual(['kernel-6.99.0-test.log', archive]);
    expect(await machines()).toEqual([]);
    expect(await builds()).toEqual([]);
  });
});

describe('a build in a machine that is ended by others', () => {
  it('names the network that was lost, is not begun twice, and leaves nothing after Ctrl-C', async () => {
    const content = await readFile(tarball(await source({ endless: true })));
    const server = await fileServer({ content, cutAfter: 100 });
    try {
      // The host as its guest sees it.
      const url = server.url.replace('127.0.0.1', '10.0.2.2');
      const words = ['build-kernel', '--source', url, '--output', output, ...common];
      const lost = await zfsdev(...words);
      expectFailure(lost, /10\.0\.2\.2\S+ can not be fetched: is there a network/);
      expect(lost.stderr).toContain('--resume');
      const [name = ''] = await machines();
      expect(lost.stderr).toContain(`zfsdev delete --force ${name}`);

      server.behave({ content });
      const build = zfsdev.begin(...words, '--resume');
      await build.until('Compiling the kernel');
      expectFailure(
        await zfsdev(...words, '--resume'),
        /this very kernel is being changed by another zfsdev/,
        4,
      );
      build.kill('SIGINT');
      expect(await build.result).toMatchObject({ exitCode: 130 });
      expect(await machines()).toEqual([]);
      expect(await builds()).toEqual([]);
    } finally {
      await server.close();
    }
  });
});

async function machines(): Promise<string[]> {
  const { instances } = JSON.parse((await zfsdev('list', '--json')).stdout) as {
    instances: { name: string }[];
  };
  return instances.map(({ name }) => name);
}

describe('a build that is ended', () => {
  it('by Ctrl-C leaves nothing, and exits 130', async () => {
    const build = zfsdev.begin(...words(await source({ endless: true })));
    await build.until('Compiling the kernel');
    build.kill('SIGINT');
    expect(await build.result).toMatchObject({ exitCode: 130 });
    expect(await builds()).toEqual([]);
    expect(await machinesOf(folder)).toEqual([]);
  });

  it('by kill -9 leaves no process, and can go on', async () => {
    const build = zfsdev.begin(...words(await source({ endless: true })));
    await build.until('Compiling the kernel');
    build.kill('SIGKILL');
    await build.result;
    const [id = ''] = await builds();
    await expect.poll(() => machinesOf(join(zfsdev.home, 'builds', id)), { timeout: 10_000 }).toEqual([]);
    const again = zfsdev.begin(...words(join(folder, 'tiny'), '--resume'));
    await again.until('Compiling the kernel');
    again.kill('SIGINT');
    expect((await again.result).exitCode).toBe(130);
  });

  it('is not begun twice at once', async () => {
    const path = await source({ endless: true });
    const first = zfsdev.begin(...words(path));
    await first.until('Compiling the kernel');
    expectFailure(await zfsdev(...words(path)), /this very kernel is being changed by another zfsdev/, 4);
    first.kill('SIGINT');
    await first.result;
  });
});

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  server.close();
  return typeof address === 'object' && address ? address.port : 0;
}
