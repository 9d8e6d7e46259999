import { chmod, mkdir, mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { shell, temporaryHome, type Shell } from '../../support/zfsdev.ts';

let zfsdev: Shell;
let removeHome: () => Promise<void>;

beforeEach(async () => {
  const { home, remove } = await temporaryHome();
  zfsdev = shell(home);
  removeHome = remove;
});

afterEach(async () => {
  await removeHome();
});

/** Nothing of Node's inner life is ever shown for a user's mistake. */
function expectNoStack(stderr: string): void {
  expect(stderr).not.toMatch(/\n\s+at .*:\d+:\d+/);
  expect(stderr).not.toContain('internal error');
}

describe('names that are none', () => {
  it.each([['../x'], ['a/b'], ['a b'], ['..'], ['A'], ['a-'], ['x'.repeat(64)], ['ä'], ['']])(
    '%j is refused with exit 2',
    async (name) => {
      for (const args of [
        ['up', 'zfs-test', '--name', name],
        ['exec', name, '--', 'true'],
        ['delete', '--', name],
      ]) {
        const { exitCode, stderr } = await zfsdev(...args);
        expectNoStack(stderr);
        expect(stderr).toContain('is not a name for an instance');
        expect(stderr).toContain('next:');
        // exec keeps the small codes for the guest's command.
        expect(exitCode).toBe(args[0] === 'exec' ? 125 : 2);
      }
      expect(await readdir(zfsdev.home)).toEqual([]);
    },
  );
});

describe('what is not there', () => {
  it.each([['start'], ['stop'], ['restart'], ['delete'], ['inspect'], ['protect'], ['unprotect'], ['logs']])(
    '%s of an unknown instance exits 4 and names the next command',
    async (verb) => {
      const { exitCode, stderr } = await zfsdev(verb, 'nobody');
      expect(stderr).toContain('there is no instance "nobody"');
      expect(stderr).toContain('zfsdev list');
      expect(exitCode).toBe(4);
    },
  );

  it('an unknown template is answered with the nearest one', async () => {
    const { exitCode, stderr } = await zfsdev('up', 'zfs-tset');
    expect(stderr).toContain('did you mean "zfs-test"?');
    expect(exitCode).toBe(2);
  });

  it('an unknown command or option is answered with the nearest one', async () => {
    const command = await zfsdev('lst');
    expect(command.stderr).toContain('list');
    expect(command.exitCode).toBe(2);
    const option = await zfsdev('up', '--memroy', '1GiB');
    expect(option.stderr).toContain('--memory');
    expect(option.exitCode).toBe(2);
  });

  it('an empty state home lists nothing, and says how to begin', async () => {
    expect((await zfsdev('list')).stdout).toContain('zfsdev up zfs-test');
    expect(JSON.parse((await zfsdev('list', '--json')).stdout)).toEqual({ instances: [] });
  });
});

describe('templates with mistakes', () => {
  it.each([
    ['a typing error', 'cpus: [1\n', /mine\.yaml:\d+:\d+/],
    ['an unknown key', 'cpu: 2\n', /mine\.yaml:1:1: .*cpus/s],
    ['a wrong unit', 'disk: 4GiX\n', /mine\.yaml:1:7: .*GiX/s],
    ['a negative size', 'disk: -4GiB\n', /mine\.yaml:1:7: .*negative/s],
  ])('%s is shown with file, line and column', async (_, text, pattern) => {
    const file = join(zfsdev.home, 'mine.yaml');
    await writeFile(file, text);
    const { exitCode, stderr } = await zfsdev('up', file);
    expect(stderr).toMatch(pattern);
    expectNoStack(stderr);
    expect(exitCode).toBe(2);
    expect(await readdir(zfsdev.home)).toEqual(['mine.yaml']);
  });

  it('a pool that does not fit is refused with the size it needs', async () => {
    const { exitCode, stderr } = await zfsdev('up', 'zfs-test', '--pool-size', '4GiB', '--disk', '4GiB');
    expect(stderr).toMatch(/\d+ ?GiB/);
    expect(exitCode).toBe(2);
  });
});

describe('the state home', () => {
  it('may not be too long for a socket, and the message says what to do', async () => {
    const long = join(zfsdev.home, 'x'.repeat(90));
    const { exitCode, stderr } = await zfsdev.with({ ZFSDEV_HOME: long })('up', 'zfs-test');
    expect(stderr).toContain('export ZFSDEV_HOME=');
    expect(exitCode).toBe(2);
  });

  it('may be a file by mistake', async () => {
    const file = join(zfsdev.home, 'file');
    await writeFile(file, '');
    const { exitCode, stderr } = await zfsdev.with({ ZFSDEV_HOME: file })('up', 'zfs-test');
    expectNoStack(stderr);
    expect(stderr).toContain(file);
    expect(exitCode).not.toBe(0);
  });

  it('with a damaged instance still lists, and deletes it', async () => {
    const folder = join(zfsdev.home, 'instances', 'hurt');
    await mkdir(folder, { recursive: true });
    await writeFile(join(folder, 'spec.json'), '{"half":');
    await writeFile(join(folder, 'state.json'), '[]');
    const list = await zfsdev('list');
    expect(list.stdout).toMatch(/hurt\s+broken/);
    expect(list.stdout).toContain('zfsdev delete hurt');
    expect(list.exitCode).toBe(0);
    expect((await zfsdev('inspect', 'hurt')).stdout).toContain('broken');
    expect((await zfsdev('start', 'hurt')).exitCode).toBe(4);
    expect((await zfsdev('delete', 'hurt')).exitCode).toBe(0);
    expect(await readdir(join(zfsdev.home, 'instances'))).toEqual([]);
  });

  it('does not take a process that was given an old pid for the machine', async () => {
    const folder = join(zfsdev.home, 'instances', 'old');
    await mkdir(folder, { recursive: true });
    await writeFile(join(folder, 'qemu.pid'), `${process.pid}\n`);
    expect((await zfsdev('delete', '--force', 'old')).exitCode).toBe(0);
    expect(process.kill(process.pid, 0)).toBe(true);
  });
});

describe('output', () => {
  it('keeps to 60 columns', async () => {
    const folder = join(zfsdev.home, 'instances', 'n'.repeat(40));
    await mkdir(folder, { recursive: true });
    const { stdout } = await zfsdev('list');
    expect(stdout).toContain('n'.repeat(40));
  });

  it('has no colours where nobody looks', async () => {
    expect((await zfsdev.with({ NO_COLOR: '' })('up', 'no-such-template')).stderr).not.toContain('\u001b[');
  });

  it('is JSON for failures too', async () => {
    const { stdout, exitCode } = await zfsdev('inspect', 'nobody', '--json');
    expect(JSON.parse(stdout)).toMatchObject({ error: { reason: 'not-found', data: { name: 'nobody' } } });
    expect(exitCode).toBe(4);
  });
});

describe('a host without QEMU', () => {
  it('exits 5 and names the package', async () => {
    const empty = await mkdtemp(join(tmpdir(), 'zfsdev-path-'));
    try {
      await chmod(empty, 0o700);
      const { exitCode, stderr } = await zfsdev.with({ PATH: empty })('up', 'zfs-test');
      expect(stderr).toContain('zfsdev doctor --fix');
      expect(exitCode).toBe(5);
      expect(await readdir(join(zfsdev.home, 'instances')).catch(() => [])).toEqual([]);
    } finally {
      await rm(empty, { recursive: true });
    }
  });
});
