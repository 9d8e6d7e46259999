import { createHash } from 'node:crypto';
import { mkdir, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { ZvolError } from '../../../src/zvold/errors.ts';
import { inventory } from '../../../src/zvold/keeper.ts';
import { createSnapshot, deleteSnapshot } from '../../../src/zvold/snapshots.ts';
import { createTemplate, deleteTemplate } from '../../../src/zvold/templates.ts';
import { createVolume, resizeVolume } from '../../../src/zvold/volumes.ts';
import { volumeMessage } from '../../../src/zvold/wire.ts';
import { recovered, ZvoldHouse } from './support.ts';

const MiB = 2 ** 20;
let house: ZvoldHouse;
const never = new AbortController().signal;
const raw = { volume: 'data', snapshot: '', format: 'raw' } as const;
const packed = { ...raw, format: 'qcow2' } as const;

beforeEach(async () => {
  house = await ZvoldHouse.open();
  await createVolume(house.keeper, { name: 'data', size: 256 * MiB, thick: false, id: '' });
});
afterEach(() => house.close());

/** The fake's clones are made empty, unless a test gives them content. */
async function clonesHave(content: Buffer, size: number): Promise<void> {
  const devices = join(house.folder, 'devices', 'tank', '.zvold');
  await mkdir(devices, { recursive: true });
  house.fake.before = async (argv) => {
    if (argv[1] !== 'clone') return;
    const path = join(devices, (argv.at(-1) ?? '').split('/').at(-1) ?? '');
    await writeFile(path, content);
    await truncate(path, size);
  };
}

it('an export tells how far it is in long runs of zeros, and its checksum is that of all bytes', async () => {
  const content = Buffer.alloc(MiB, 'zfsdev');
  await clonesHave(content, 256 * MiB);
  const { total, parts, sha256, close } = await house.exports.open(raw, never);
  const [offsets, data] = [[] as number[], [] as Buffer[]];
  for await (const part of parts) {
    if (part.data.length === 0) offsets.push(part.offset);
    else data.push(part.data);
  }
  expect(Buffer.concat(data).equals(content)).toBe(true);
  expect(offsets.length).toBe(3);
  const whole = createHash('sha256')
    .update(content)
    .update(Buffer.alloc(total - MiB));
  expect(sha256()).toBe(whole.digest('hex'));
  await close();
  await house.expectNothingLeft('tank/data');
});

it('an export whose receiver is gone reads no further', async () => {
  const receiver = new AbortController();
  const { parts, close } = await house.exports.open(raw, receiver.signal);
  const reading = (async () => {
    for await (const { offset } of parts) {
      expect(offset).toBeLessThan(128 * MiB);
      receiver.abort(new Error('gone'));
    }
  })();
  await expect(reading).rejects.toThrow('gone');
  await close();
  await house.expectNothingLeft('tank/data');
});

it('an export that can’t be cloned leaves no snapshot', async () => {
  house.fake.before = (argv) => {
    if (argv[1] === 'clone') throw new ZvolError('RESOURCE_EXHAUSTED', 'out of space');
  };
  await expect(house.exports.open(raw, never)).rejects.toThrow('out of space');
  await house.expectNothingLeft('tank/data');
});

it.each([
  [
    'is cancelled while its qcow2 is made',
    () => Promise.reject(new ZvolError('CANCELLED', 'ended')),
    'ended',
  ],
  [
    'has no room for its qcow2',
    () => Promise.resolve({ exitCode: 1, stdout: '', stderr: 'qemu-img: No space left on device\n' }),
    'a raw export needs none',
  ],
])('an export that %s leaves nothing', async (_, convert, words) => {
  house.convert = async (argv) => {
    await writeFile(argv.at(-1) ?? '', 'half of it');
    return convert();
  };
  await expect(house.exports.open(packed, never)).rejects.toThrow(words);
  await house.expectNothingLeft('tank/data');
});

it('an export of a snapshot has the size of that, whatever its volume has grown to', async () => {
  await createSnapshot(house.keeper, 'data', 'first', '');
  await resizeVolume(house.keeper, 'data', 512 * MiB);
  await clonesHave(Buffer.alloc(MiB, 'zfsdev'), 256 * MiB);
  const { total, parts, close } = await house.exports.open({ ...raw, snapshot: 'first' }, never);
  expect(total).toBe(256 * MiB);
  const data: Buffer[] = [];
  for await (const part of parts) data.push(part.data);
  expect(Buffer.concat(data).equals(Buffer.alloc(MiB, 'zfsdev'))).toBe(true);
  await close();
  await house.expectNothingLeft('tank/data', 'tank/data@first');
});

it('an export counts as no clone of the template that its snapshot is, and keeps that from nothing', async () => {
  await createSnapshot(house.keeper, 'data', 'first', '');
  await createTemplate(house.keeper, { name: 'base', volume: 'data', snapshot: 'first', id: '' });
  const { close } = await house.exports.open({ ...raw, snapshot: 'first' }, never);
  const { templates, volumes } = await inventory(house.keeper);
  expect(templates).toMatchObject([{ name: 'base', clones: [] }]);
  expect(volumes.map(volumeMessage)).toMatchObject([
    { name: 'data', snapshots: [{ name: 'first', clones: [] }] },
  ]);
  await expect(deleteSnapshot(house.keeper, 'data', 'first', false)).rejects.toThrow('was cloned from');
  await deleteTemplate(house.keeper, 'base');
  await close();
  await house.expectNothingLeft('tank/data', 'tank/data@first');
});

it('an export that is whole is so, also if its clone can’t be taken away, which is said', async () => {
  await clonesHave(Buffer.alloc(MiB, 'zfsdev'), 256 * MiB);
  const { close } = await house.exports.open(raw, never);
  house.fake.before = (argv) => {
    if (argv[1] === 'destroy') throw new ZvolError('INTERNAL', 'something is wrong');
  };
  await close();
  expect(house.reports).toEqual([
    expect.stringMatching(/^tank\/\.zvold\/export-.* could not be taken away, .*: something is wrong$/),
  ]);
  house.fake.before = () => undefined;
  expect(await recovered(house.exports)).toEqual([expect.stringContaining('was cut off was destroyed')]);
  await house.expectNothingLeft('tank/data');
});

describe('a daemon that is killed in an export', () => {
  it.each([
    ['when its snapshot is there', 'zfs clone', 'tank/data@export-'],
    ['when its clone is there', 'zfs destroy -d', 'tank/.zvold/export-'],
  ])('%s leaves what the next one takes away, and says so', async (_, step, left) => {
    const died = new Promise<void>((resolve) => {
      house.fake.before = (argv) => {
        if (!argv.join(' ').startsWith(step)) return undefined;
        resolve();
        return new Promise(() => undefined);
      };
    });
    void house.exports.open(raw, never);
    await died;
    house.fake.before = () => undefined;
    await recovered(house.imports);
    const told = await recovered(house.anewExports());
    expect(told[0]).toContain(left);
    await house.expectNothingLeft('tank/data');
    expect(await recovered(house.exports)).toEqual([]);
  });

  it('while its qcow2 is made leaves nothing behind the next one, which touches none of its own', async () => {
    house.convert = async (argv) => {
      await writeFile(argv.at(-1) ?? '', 'half of it');
      return { exitCode: 0, stdout: '', stderr: '' };
    };
    await house.exports.open(packed, never);
    const next = house.anewExports();
    const mine = await next.open(packed, never);
    expect(await recovered(next)).toEqual([expect.stringContaining('of an export that was cut off')]);
    const sent: string[] = [];
    for await (const { data } of mine.parts) sent.push(data.toString());
    expect(sent).toEqual(['half of it']);
    await mine.close();
    await house.expectNothingLeft('tank/data');
  });

  it('takes away no snapshot of somebody else, whatever it is called', async () => {
    await createSnapshot(house.keeper, 'data', 'export-of-mine', '');
    expect(await recovered(house.exports)).toEqual([]);
    expect(house.fake.datasets.has('tank/data@export-of-mine')).toBe(true);
  });
});
