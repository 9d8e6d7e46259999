import { existsSync, readFileSync, symlinkSync } from 'node:fs';
import { readdir, readFile, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { DiskDevice } from '../../../src/template/storage.ts';
import { callIn } from '../../support/call.ts';
import { testContext, type TestContext } from '../../support/context.ts';
import { stoppedInstance } from '../../support/instances.ts';
import { done, refused } from '../../support/outcome.ts';
import { qemuImgWith } from '../../support/qemu-img.ts';
import { shell, type Result, type Shell } from '../../support/zfsdev.ts';

const MiB = 2 ** 20;

let ctx: TestContext;
let zfsdev: Shell;
let folder: string;

const qemu = (program: 'qemu-img' | 'qemu-io', ...args: string[]): string =>
  callIn(ctx.folder, program, ...args);
const at = (file: string): string => join(ctx.folder, file);
const own = (file: string): string => join(folder, 'disks', file);

/** A disk of 32 MiB with 2 MiB in the middle of it. */
function make(file: string, format: string, pattern = 6): void {
  qemu('qemu-img', 'create', '-q', '-f', format, file, '32M');
  qemu('qemu-io', '-f', format, '-c', `write -P ${pattern} 8M 2M`, file);
}

beforeEach(async () => {
  ctx = await testContext();
  zfsdev = shell(ctx.paths.home, { ZFSDEV_RESERVE: '1B', HOME: ctx.folder });
  const paths = await stoppedInstance(ctx.paths, 'a', { diskBound: 64 * MiB });
  folder = paths.folder;
  qemu('qemu-img', 'create', '-q', '-f', 'qcow2', paths.disk, '64M');
  make(at('one.qcow2'), 'qcow2');
});
afterEach(() => ctx.remove());

const disk = (verb: string, ...args: string[]): Promise<Result> => zfsdev('disk', verb, ...args);

const holds = (path: string, format: string, pattern = 6): boolean =>
  !qemu('qemu-io', '-f', format, '-c', `read -P ${pattern} 8M 2M`, path).includes('failed');
const blocks = async (path: string): Promise<number> => (await stat(path)).blocks * 512;
const storage = (): DiskDevice[] | undefined =>
  (JSON.parse(readFileSync(join(folder, 'spec.json'), 'utf8')) as { storage?: DiskDevice[] }).storage;
const leftovers = async (): Promise<string[]> =>
  [...(await readdir(ctx.folder)), ...(await readdir(own('')).catch(() => []))].filter((name) =>
    name.startsWith('.'),
  );

/** A qemu-img that does this before it converts. */
async function withConvert(script: string): Promise<Shell> {
  return zfsdev.with({ PATH: await qemuImgWith(ctx.folder, `if [ "$1" = convert ]; then ${script}; fi`) });
}

describe('a conversion', () => {
  it('goes from qcow2 to raw and back, is the same, and stays sparse', async () => {
    const told = await done(disk('convert', at('one.qcow2'), at('two.raw')));
    expect(told.stdout).toContain('is raw: 32 MiB virtual');
    expect(holds(at('two.raw'), 'raw')).toBe(true);
    expect(await blocks(at('two.raw'))).toBeLessThan(4 * MiB);
    expect((await stat(at('two.raw'))).mode & 0o777).toBe(0o600);
    await done(disk('convert', at('two.raw'), at('three.qcow2')));
    expect(qemu('qemu-img', 'compare', at('one.qcow2'), at('three.qcow2'))).toContain('identical');
    expect(await blocks(at('three.qcow2'))).toBeLessThan(4 * MiB);
    expect(await leftovers()).toEqual([]);
  });

  it('tells how far it is', async () => {
    const { stdout } = await done(disk('convert', at('one.qcow2'), at('two.raw'), '--json'));
    const events = stdout.split('\n').map((line) => JSON.parse(line) as { type: string; fraction?: number });
    expect(events.some(({ type, fraction }) => type === 'step-progress' && fraction === 1)).toBe(true);
    expect(events.at(-1)).toMatchObject({ type: 'result', format: 'raw', virtualBytes: 32 * MiB });
  });

  it('holds what the source stands on, and leaves its snapshots to it, which is said', async () => {
    qemu('qemu-img', 'create', '-q', '-f', 'qcow2', '-b', at('one.qcow2'), '-F', 'qcow2', at('over.qcow2'));
    qemu('qemu-img', 'snapshot', '-c', 'before', at('over.qcow2'));
    const { stderr } = await done(disk('convert', at('over.qcow2'), at('whole.qcow2')));
    expect(stderr).toContain(`from ${at('one.qcow2')} too`);
    expect(stderr).toContain('snapshots stay in');
    expect(qemu('qemu-img', 'info', at('whole.qcow2'))).not.toContain('backing file');
    expect(holds(at('whole.qcow2'), 'qcow2')).toBe(true);
  });

  it('takes raw for raw, whatever a guest has written where a qcow2 has its header', async () => {
    const bytes = await readFile(at('one.qcow2'));
    await done(disk('convert', at('one.qcow2'), at('two.raw'), '--from', 'raw', '--to', 'raw'));
    expect((await readFile(at('two.raw'))).equals(bytes)).toBe(true);
    await writeFile(at('text'), 'no disk');
    await refused(disk('convert', at('text'), at('x.raw'), '--from', 'qcow2'), 1, 'is no qcow2');
  });

  it('replaces a file only if told, and never itself, a link, or a disk of a machine', async () => {
    await writeFile(at('two.raw'), 'mine');
    await refused(disk('convert', at('one.qcow2'), at('two.raw')), 4, 'already', '--overwrite');
    expect(await readFile(at('two.raw'), 'utf8')).toBe('mine');
    await done(disk('convert', at('one.qcow2'), at('two.raw'), '--overwrite'));
    expect(holds(at('two.raw'), 'raw')).toBe(true);
    await refused(disk('convert', at('one.qcow2'), at('one.qcow2'), '--overwrite'), 2, 'from itself');
    symlinkSync(at('two.raw'), at('link.raw'));
    await refused(disk('convert', at('one.qcow2'), at('link.raw'), '--overwrite'), 1, 'a symbolic link');
    const root = join(folder, 'disk.qcow2');
    await refused(disk('convert', at('one.qcow2'), root, '--overwrite'), 4, 'in use as the disk of "a"');
    await refused(disk('convert', at('one.qcow2'), at('no/x.raw')), 4, `there is no folder ${at('no')}`);
    await refused(disk('convert', at('nothing'), at('x.raw')), 1, 'it is not there');
  });

  it('leaves a file that appears while it is written', async () => {
    const late = await withConvert(`echo mine >'${at('x.raw')}'`);
    await refused(late('disk', 'convert', at('one.qcow2'), at('x.raw')), 4, at('x.raw'), 'already', 'ls -l');
    expect(await readFile(at('x.raw'), 'utf8')).toBe('mine\n');
    expect(await leftovers()).toEqual([]);
  });

  it('never replaces what its source stands on', async () => {
    qemu('qemu-img', 'create', '-q', '-f', 'qcow2', '-b', at('one.qcow2'), '-F', 'qcow2', at('mid.qcow2'));
    qemu('qemu-img', 'create', '-q', '-f', 'qcow2', '-b', at('mid.qcow2'), '-F', 'qcow2', at('over.qcow2'));
    const before = await readFile(at('one.qcow2'));
    for (const base of ['one.qcow2', 'mid.qcow2'])
      await refused(disk('convert', at('over.qcow2'), at(base), '--overwrite'), 2, `stands on ${at(base)}`);
    expect((await readFile(at('one.qcow2'))).equals(before)).toBe(true);
  });

  it('does not replace a file that a machine was given meanwhile', async () => {
    make(at('x.qcow2'), 'qcow2', 9);
    const before = readFileSync(join(folder, 'spec.json'));
    await done(disk('add', 'a', 'mine', '--file', at('x.qcow2')));
    await writeFile(at('given.json'), readFileSync(join(folder, 'spec.json')));
    await writeFile(join(folder, 'spec.json'), before);
    const late = await withConvert(`cp '${at('given.json')}' '${join(folder, 'spec.json')}'`);
    await refused(
      late('disk', 'convert', at('one.qcow2'), at('x.qcow2'), '--overwrite'),
      4,
      'in use as the disk "mine" of "a"',
    );
    expect(holds(at('x.qcow2'), 'qcow2', 9)).toBe(true);
    expect(await leftovers()).toEqual([]);
  });

  it('does not replace a disk of a machine that is damaged', async () => {
    await done(disk('import', 'a', 'data', at('one.qcow2')));
    await writeFile(join(folder, 'spec.json'), '{');
    make(at('nine.qcow2'), 'qcow2', 9);
    await refused(
      disk('convert', at('nine.qcow2'), own('data.qcow2'), '--overwrite'),
      4,
      'in use as a disk of "a"',
    );
    expect(holds(own('data.qcow2'), 'qcow2')).toBe(true);
  });

  it('of a damaged disk is refused with what to do', async () => {
    const bytes = await readFile(at('one.qcow2'));
    bytes.writeBigUInt64BE(bytes.readBigUInt64BE(72) | 2n, 72);
    await writeFile(at('one.qcow2'), bytes);
    await refused(disk('convert', at('one.qcow2'), at('x.raw')), 1, 'corrupt', 'qemu-img check');
    expect(existsSync(at('x.raw'))).toBe(false);
  });

  it('is admitted only if it fits, and leaves nothing when the host has no room on the way', async () => {
    const poor = zfsdev.with({ ZFSDEV_RESERVE: '100TiB' });
    await refused(poor('disk', 'convert', at('one.qcow2'), at('x.raw')), 3, 'the copy of');
    const full = await withConvert(
      'echo half >"$(eval echo \\"\\$$#\\")"; echo "qemu-img: error while writing: No space left on device" >&2; exit 1',
    );
    await writeFile(at('x.raw'), 'mine');
    await refused(full('disk', 'convert', at('one.qcow2'), at('x.raw'), '--overwrite'), 3, 'no room left');
    expect(await readFile(at('x.raw'), 'utf8')).toBe('mine');
    expect(await leftovers()).toEqual([]);
  });

  it('that writes something else is thrown away', async () => {
    const lying = await withConvert('for last; do :; done; truncate -s 32M "$last"; exit 0');
    await refused(lying('disk', 'convert', at('one.qcow2'), at('x.raw')), 1, 'is not the same');
    expect(existsSync(at('x.raw'))).toBe(false);
    expect(await leftovers()).toEqual([]);
  });

  it('that is cut off leaves nothing, and takes away what a killed one left', async () => {
    const endless = await withConvert('exec sleep 1000');
    for (const signal of ['SIGKILL', 'SIGINT'] as const) {
      const begun = endless.begin('disk', 'convert', at('one.qcow2'), at('x.raw'));
      await begun.until('Writing');
      begun.kill(signal);
      expect((await begun.result).exitCode).toBe(signal === 'SIGINT' ? 130 : null);
    }
    expect(await leftovers()).toEqual([]);
    expect(existsSync(at('x.raw'))).toBe(false);
    await done(disk('convert', at('one.qcow2'), at('x.raw')));
  });
});

describe('an import', () => {
  it.each([
    ['qcow2', 'qcow2'],
    ['qcow2', 'raw'],
    ['raw', 'qcow2'],
    ['raw', 'raw'],
  ])('makes a disk of a %s as %s, and leaves the file', async (from, to) => {
    const file = at(`source.${from}`);
    make(file, from);
    await done(disk('import', 'a', 'data', file, '--type', to));
    expect(holds(own(`data.${to}`), to)).toBe(true);
    expect(holds(file, from)).toBe(true);
    expect(await blocks(own(`data.${to}`))).toBeLessThan(4 * MiB);
    expect(storage()).toMatchObject([{ name: 'data', type: to, size: 32 * MiB }]);
    expect(storage()?.[0]).not.toHaveProperty('detached');
    await refused(disk('import', 'a', 'data', file, '--type', to), 4, 'already');
  });

  it('of a disk that stands on another one is refused with the command that makes it whole', async () => {
    qemu('qemu-img', 'create', '-q', '-f', 'qcow2', '-b', at('one.qcow2'), '-F', 'qcow2', at('over.qcow2'));
    await refused(
      disk('import', 'a', 'data', at('over.qcow2')),
      4,
      'is no disk without it',
      `zfsdev disk convert '${at('over.qcow2')}' '${at('over-whole.qcow2')}'`,
    );
    expect(storage()).toBeUndefined();
  });

  it('that fails leaves neither a file nor a record', async () => {
    const full = await withConvert(
      'echo "qemu-img: error while writing: No space left on device" >&2; exit 1',
    );
    await refused(full('disk', 'import', 'a', 'data', at('one.qcow2')), 3, 'no room left');
    expect(storage()).toBeUndefined();
    expect(existsSync(own('data.qcow2'))).toBe(false);
  });

  it('that was killed once its file was whole is completed by the same command, and by no other content', async () => {
    await done(disk('import', 'a', 'data', at('one.qcow2')));
    const spec = JSON.parse(readFileSync(join(folder, 'spec.json'), 'utf8')) as { storage: DiskDevice[] };
    const half = spec.storage.map((each) => ({ ...each, detached: true }));
    await writeFile(join(folder, 'spec.json'), JSON.stringify({ ...spec, storage: half }));
    make(at('nine.qcow2'), 'qcow2', 9);
    await refused(
      disk('import', 'a', 'data', at('nine.qcow2')),
      4,
      'would be overwritten',
      'zfsdev disk attach a data',
      'zfsdev disk remove a data',
    );
    await done(disk('import', 'a', 'data', at('one.qcow2')));
    expect(storage()?.[0]).not.toHaveProperty('detached');
    expect(holds(own('data.qcow2'), 'qcow2')).toBe(true);
  });

  it('that was killed is not attached as an empty disk, and completed by the same command', async () => {
    const endless = await withConvert('exec sleep 1000');
    const begun = endless.begin('disk', 'import', 'a', 'data', at('one.qcow2'));
    await begun.until('Copying');
    begun.kill('SIGKILL');
    await begun.result;
    expect(storage()).toMatchObject([{ name: 'data', detached: true }]);
    await refused(disk('attach', 'a', 'data'), 1, 'is not there');
    await done(disk('import', 'a', 'data', at('one.qcow2')));
    expect(holds(own('data.qcow2'), 'qcow2')).toBe(true);
    expect(await leftovers()).toEqual([]);
  });
});

describe("a change of a machine's own disk", () => {
  beforeEach(async () => {
    await done(disk('import', 'a', 'data', at('one.qcow2')));
  });

  it('makes a raw of a qcow2 and back, the same each time', async () => {
    await done(disk('change', 'a', 'data', '--type', 'raw'));
    expect(await readdir(own(''))).toEqual(['data.raw']);
    expect(holds(own('data.raw'), 'raw')).toBe(true);
    expect(storage()).toMatchObject([{ type: 'raw', size: 32 * MiB }]);
    expect((await done(disk('change', 'a', 'data', '--type', 'raw'))).stdout).toContain('is raw already');
    await done(disk('change', 'a', 'data', '--type', 'qcow2'));
    expect(await readdir(own(''))).toEqual(['data.qcow2']);
    expect(qemu('qemu-img', 'compare', at('one.qcow2'), own('data.qcow2'))).toContain('identical');
  });

  it('is refused where snapshots would be lost, and for a file of the user', async () => {
    qemu('qemu-img', 'snapshot', '-c', 'before', own('data.qcow2'));
    await refused(disk('change', 'a', 'data', '--type', 'raw'), 4, '"before"', 'zfsdev snapshot delete a');
    make(at('mine.qcow2'), 'qcow2');
    await done(disk('add', 'a', 'mine', '--file', at('mine.qcow2')));
    await refused(
      disk('change', 'a', 'mine', '--type', 'raw'),
      4,
      'a file of your own',
      'zfsdev disk convert',
    );
  });

  it('cut off before it is written down takes the copy that is there, if it is the same', async () => {
    qemu('qemu-img', 'convert', '-O', 'raw', own('data.qcow2'), own('data.raw'));
    await done(disk('change', 'a', 'data', '--type', 'raw'));
    expect(await readdir(own(''))).toEqual(['data.raw']);
    await writeFile(own('data.qcow2'), 'something else');
    await refused(disk('change', 'a', 'data', '--type', 'qcow2'), 1, 'no');
    expect(storage()).toMatchObject([{ type: 'raw' }]);
    expect(await readFile(own('data.qcow2'), 'utf8')).toBe('something else');
  });

  it('cut off before the old file went is completed by the same command', async () => {
    await done(disk('change', 'a', 'data', '--type', 'raw'));
    qemu('qemu-img', 'convert', '-O', 'qcow2', own('data.raw'), own('data.qcow2'));
    await done(disk('change', 'a', 'data', '--type', 'raw'));
    expect(await readdir(own(''))).toEqual(['data.raw']);
    make(own('data.qcow2'), 'qcow2', 9);
    expect((await done(disk('change', 'a', 'data', '--type', 'raw'))).stderr).toContain(
      'is what "data" was before',
    );
    expect(holds(own('data.qcow2'), 'qcow2', 9)).toBe(true);
  });
});
