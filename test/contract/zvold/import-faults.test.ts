import { randomBytes } from 'node:crypto';
import { readdir, readFile, rm, symlink, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { discard } from '../../../src/zvold/discard.ts';
import { ZvolError } from '../../../src/zvold/errors.ts';
import { ImportScene, KiB, MiB, wanted } from './import-scene.ts';
import type { ZvoldHouse } from './support.ts';

let scene: ImportScene;
let house: ZvoldHouse;
beforeEach(async () => {
  scene = await ImportScene.open();
  house = scene.house;
});
afterEach(() => scene.close());

const busy = (): ZvolError => new ZvolError('FAILED_PRECONDITION', "cannot destroy 'x': dataset is busy");

describe('a qcow2 that was cut off', () => {
  it.each([[[]], [['-c']], [['-o', 'compat=0.10']]])(
    '(made with %s) is told so, and leaves nothing',
    async (options) => {
      await scene.qcow2(2 * MiB, ...options);
      await truncate(scene.path('disk.qcow2'), (await readFile(scene.path('disk.qcow2'))).length - 200 * KiB);
      const { id } = await house.imports.start(wanted(), scene.path('disk.qcow2'));
      expect(await house.ended(id)).toMatchObject({
        state: 'failed',
        code: 'DATA_LOSS',
        error: expect.stringContaining('the qcow2 was cut off') as string,
      });
      await house.expectNothingLeft();
    },
  );
});

describe('a pool without room', () => {
  it('is seen before anything is written', async () => {
    house.fake.available = 10 * MiB;
    await writeFile(scene.path('disk.raw'), randomBytes(MiB));
    const { id } = await house.imports.start(wanted(), scene.path('disk.raw'));
    expect(await house.ended(id)).toMatchObject({
      code: 'RESOURCE_EXHAUSTED',
      error: 'there is no room left in the pool tank: it has 10 MiB free, which imports leave alone',
    });
    await house.expectNothingLeft();
  });

  it('is seen while it fills', async () => {
    house.fake.available = 40 * MiB;
    // What was written shows once the pool has really written it.
    house.fake.before = (argv) => {
      if (argv[0] === 'zpool') house.fake.available -= 6 * MiB;
    };
    await writeFile(scene.path('disk.raw'), randomBytes(64 * MiB));
    const { id } = await house.imports.start(wanted(), scene.path('disk.raw'));
    const { code, done } = await house.ended(id);
    expect(code).toBe('RESOURCE_EXHAUSTED');
    expect(done).toBeLessThan(40 * MiB);
    await house.expectNothingLeft();
  });

  it('is seen while qemu-img fills it, which is ended', async () => {
    await scene.qcow2();
    house.fake.available = 17 * MiB;
    house.fake.before = (argv) => {
      if (argv[0] === 'zpool') house.fake.available = MiB;
    };
    house.convert = (_, { signal }) =>
      new Promise((__, reject) =>
        signal?.addEventListener('abort', () => reject(new ZvolError('CANCELLED', 'qemu-img was ended'))),
      );
    const { id } = await house.imports.start(wanted(), scene.path('disk.qcow2'));
    expect(await house.ended(id)).toMatchObject({ state: 'failed', code: 'RESOURCE_EXHAUSTED' });
    await house.expectNothingLeft();
  });

  it.each([
    ['is what an I/O error means there', 0, 'RESOURCE_EXHAUSTED', 'the pool was full'],
    ['is not what an I/O error means elsewhere', 2 ** 40, 'INVALID_ARGUMENT', 'Input/output error'],
  ])('%s', async (_, available, code, words) => {
    await scene.qcow2();
    house.convert = () => {
      house.fake.available = available;
      const stderr = 'qemu-img: error while writing at byte 0: Input/output error\n';
      return Promise.resolve({ exitCode: 1, stdout: '', stderr });
    };
    const { id } = await house.imports.start(wanted(), scene.path('disk.qcow2'));
    const job = await house.ended(id);
    expect(job).toMatchObject({ state: 'failed', code });
    expect(job.error).toContain(words);
    await house.expectNothingLeft();
  });
});

describe('a zvol whose device somebody has open', () => {
  beforeEach(() => writeFile(scene.path('disk.raw'), randomBytes(MiB)));

  it('goes as soon as nobody has any more', async () => {
    let [refused, looked] = [0, 0];
    house.fake.before = (argv) => {
      if (argv[1] === 'destroy' && (refused += 1) < 3) throw busy();
    };
    const users = house.fake.machine.usersOf.bind(house.fake.machine);
    house.fake.machine.usersOf = (device) => {
      looked += 1;
      return looked === 1 ? Promise.resolve(['open in (udev-worker) (7)']) : users(device);
    };
    const { id } = await house.imports.start(wanted({ sha256: '0'.repeat(64) }), scene.path('disk.raw'));
    expect(await house.ended(id)).toMatchObject({ state: 'failed', code: 'DATA_LOSS' });
    expect({ refused, looked: looked > 1 }).toEqual({ refused: 3, looked: true });
    await house.expectNothingLeft();
  });

  it('is not waited for for ever, and told of', async () => {
    house.fake.before = (argv) => {
      if (argv[1] === 'destroy') throw busy();
    };
    await expect(discard(house.keeper, 'tank/x', 0)).rejects.toThrow('dataset is busy');
    house.fake.before = (argv) => {
      if (argv[1] === 'destroy') throw new ZvolError('UNAVAILABLE', 'pool I/O is currently suspended');
    };
    const { id } = await house.imports.start(wanted({ sha256: '0'.repeat(64) }), scene.path('disk.raw'));
    const { error } = await house.ended(id);
    expect(error).toMatch(
      /was wanted; tank\/\.zvold\/.* could not be taken away, and goes when zvold starts again/,
    );
    expect(house.reports).toEqual([expect.stringContaining('currently suspended')]);
    house.fake.before = () => undefined;
    expect(await house.anew().recover()).toEqual([`the unfinished tank/.zvold/${id} was destroyed`]);
    await house.expectNothingLeft();
  });
});

describe('a journal that can’t be written', () => {
  const journal = (): string => join(house.folder, 'state', 'imports');
  beforeEach(() => writeFile(scene.path('disk.raw'), randomBytes(MiB)));

  it('fails the import that begins, and nothing else', async () => {
    await symlink('/dev/full', join(journal(), 'mine.json.new'));
    await expect(house.imports.start(wanted({ id: 'mine' }), scene.path('disk.raw'))).rejects.toMatchObject({
      code: 'RESOURCE_EXHAUSTED',
      message: expect.stringMatching(/^the journal of imports in .* can't be written: ENOSPC/) as string,
    });
    expect(await readdir(journal())).toEqual([]);
    expect(house.imports.list(true)).toEqual([]);
    await house.expectNothingLeft();
    const { id } = await house.imports.start(wanted({ id: 'mine' }), scene.path('disk.raw'));
    expect(await house.ended(id)).toMatchObject({ state: 'completed' });
  });

  it('at the end of an import is said, and the pool knows better', async () => {
    house.fake.before = async (argv) => {
      if (argv[1] === 'inherit') await rm(journal(), { recursive: true });
    };
    const { id } = await house.imports.start(wanted(), scene.path('disk.raw'));
    expect(await house.ended(id)).toMatchObject({ state: 'completed' });
    expect(house.reports).toEqual([expect.stringContaining(`how the import ${id} ended is not kept`)]);
  });

  it('leaves a file beside it, which the next daemon takes away', async () => {
    await writeFile(join(journal(), 'mine.json.new'), '{"id": "mi');
    await writeFile(join(journal(), 'torn.json'), '{"id": "to');
    await writeFile(join(journal(), 'other.json'), 'null');
    house.anew();
    expect(await readdir(journal())).toEqual([]);
  });
});
