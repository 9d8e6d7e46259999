import { randomBytes } from 'node:crypto';
import { mkdir, readdir, readFile, rm, symlink, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { discard } from '../../../src/zvold/discard.ts';
import { ZvolError } from '../../../src/zvold/errors.ts';
import { inventory } from '../../../src/zvold/keeper.ts';
import { ImportScene, KiB, MiB, wanted } from './import-scene.ts';
import { recovered, type ZvoldHouse } from './support.ts';

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
    expect(await recovered(house.anew())).toEqual([`the unfinished tank/.zvold/${id} was destroyed`]);
    await house.expectNothingLeft();
  });
});

describe('a step that ZFS was given up at', () => {
  beforeEach(() => writeFile(scene.path('disk.raw'), randomBytes(MiB)));

  /** Has ZFS do such a step, of a certain dataset, when it is asked for, but answer that it took too long. */
  function doneUnheard(verb: string, comes = true): void {
    let given = false;
    house.fake.before = async (argv) => {
      if (given || argv[1] !== verb) return;
      given = true;
      if (comes) await house.fake.command([...argv] as [string, ...string[]], { deadline: 1 });
      throw new ZvolError('DEADLINE_EXCEEDED', `zfs ${verb} did not end in 600 s, and was killed`);
    };
  }

  it.each(['template', 'volume'] as const)(
    'and has come about all the same leaves the %s that it made whole',
    async (target) => {
      const watching = new AbortController();
      const told: string[] = [];
      const watch = (async () => {
        for await (const each of house.keeper.hub.watch(() => Promise.resolve([]), watching.signal))
          told.push(each.kind);
      })();
      doneUnheard('inherit');
      const { id } = await house.imports.start(wanted({ target }), scene.path('disk.raw'));
      expect(await house.ended(id)).toMatchObject({ state: 'completed', error: '' });
      const all = await inventory(house.keeper);
      expect((target === 'template' ? all.templates : all.volumes).map((each) => each.id)).toEqual([id]);
      expect(house.fake.calls.filter((each) => each.startsWith('zfs destroy'))).toEqual([]);
      watching.abort();
      await watch;
      expect(told).toContain(target);
    },
  );

  it.each([
    ['template', 'inherit'],
    ['volume', 'inherit'],
    ['volume', 'rename'],
  ] as const)('and has not come about takes the unfinished %s away (%s)', async (target, verb) => {
    doneUnheard(verb, false);
    const { id } = await house.imports.start(wanted({ target }), scene.path('disk.raw'));
    expect(await house.ended(id)).toMatchObject({ state: 'failed', code: 'DEADLINE_EXCEEDED' });
    await house.expectNothingLeft();
  });

  it('and has only renamed it is found where it lies by now', async () => {
    doneUnheard('rename');
    const { id } = await house.imports.start(wanted({ target: 'volume' }), scene.path('disk.raw'));
    expect(await house.ended(id)).toMatchObject({ state: 'failed', code: 'DEADLINE_EXCEEDED' });
    await house.expectNothingLeft();
  });

  it('and can’t be looked at takes nothing away, and says so', async () => {
    doneUnheard('inherit');
    const giveUp = house.fake.before;
    house.fake.before = async (argv) => {
      try {
        await giveUp(argv);
      } catch (error) {
        house.fake.state = 'SUSPENDED';
        throw error;
      }
    };
    const { id } = await house.imports.start(wanted({ target: 'volume' }), scene.path('disk.raw'));
    const { error } = await house.ended(id);
    expect(error).toMatch(/was killed; what there is of it could not be told; .* is SUSPENDED/);
    expect(house.reports).toEqual([expect.stringContaining('could not be told')]);
    house.fake.state = 'ONLINE';
    expect(await recovered(house.anew())).toEqual([]);
    expect((await inventory(house.keeper)).volumes.map((each) => each.id)).toEqual([id]);
  });

  it('never costs a template that has the same id', async () => {
    const first = await house.imports.start(wanted({ id: 'mine' }), scene.path('disk.raw'));
    await house.ended(first.id);
    await rm(join(house.folder, 'state', 'imports', 'mine.json'));
    house.anew();
    house.fake.before = (argv) => {
      if (argv.includes('-V')) throw new ZvolError('DEADLINE_EXCEEDED', 'zfs create did not end');
    };
    const { id } = await house.imports.start(
      wanted({ id: 'mine', target: 'volume', name: 'other' }),
      scene.path('disk.raw'),
    );
    expect(await house.ended(id)).toMatchObject({ state: 'failed', code: 'DEADLINE_EXCEEDED' });
    expect((await inventory(house.keeper)).templates.map((each) => each.id)).toEqual(['mine']);
  });
});

describe('a journal', () => {
  const journal = (): string => join(house.folder, 'state', 'imports');
  beforeEach(() => writeFile(scene.path('disk.raw'), randomBytes(MiB)));

  it('that can’t be written fails the import that begins, and nothing else', async () => {
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

  it('that can’t be written at the end of an import is said, and the pool knows better', async () => {
    house.fake.before = async (argv) => {
      if (argv[1] === 'inherit') await rm(journal(), { recursive: true });
    };
    const { id } = await house.imports.start(wanted(), scene.path('disk.raw'));
    expect(await house.ended(id)).toMatchObject({ state: 'completed' });
    expect(house.reports).toEqual([expect.stringContaining(`how the import ${id} ended is not kept`)]);
  });

  it('that was cut off leaves a file beside it, which the next daemon takes away', async () => {
    await writeFile(join(journal(), 'mine.json.new'), '{"id": "mi');
    house.anew();
    expect(await readdir(journal())).toEqual([]);
    expect(house.reports).toEqual([]);
  });

  it('that is none is put aside, and said', async () => {
    const [torn, other] = ['{"id": "to', 'null'];
    await writeFile(join(journal(), 'torn.json'), torn);
    await writeFile(join(journal(), 'other.json'), other);
    await writeFile(join(journal(), 'notes'), 'mine');
    house.anew();
    expect((await readdir(journal())).sort()).toEqual(['notes', 'other.json.damaged', 'torn.json.damaged']);
    expect(await readFile(join(journal(), 'torn.json.damaged'), 'utf8')).toBe(torn);
    expect(house.reports.sort()).toEqual([
      expect.stringMatching(/other\.json is no journal of an import, and was put aside: .*\.damaged$/),
      expect.stringMatching(/torn\.json is no journal of an import, and was put aside: .*\.damaged$/),
    ]);
    house.reports.length = 0;
    house.anew();
    expect(house.reports).toEqual([]);
  });

  it('that can’t be read stays as it is, and is said', async () => {
    const { id } = await house.imports.start(wanted({ id: 'mine' }), scene.path('disk.raw'));
    await house.ended(id);
    // What is read there is an I/O error.
    await symlink('/proc/self/mem', join(journal(), 'sick.json'));
    await mkdir(join(journal(), 'folder.json'));
    const next = house.anew();
    expect((await readdir(journal())).sort()).toEqual(['folder.json', 'mine.json', 'sick.json']);
    expect(next.list(true).map((job) => job.id)).toEqual(['mine']);
    expect(house.reports.sort()).toEqual([
      expect.stringMatching(/folder\.json is not known, as it can't be read: EISDIR/),
      expect.stringMatching(/sick\.json is not known, as it can't be read: EIO/),
    ]);
  });
});
