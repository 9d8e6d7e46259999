import { readFile, readdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { ZvolError } from '../../../src/zvold/errors.ts';
import { call } from '../../support/call.ts';
import { toQcow2 } from '../../support/qemu-img.ts';
import { ImportScene, sample, wanted } from './import-scene.ts';
import { convertToFile, type ZvoldHouse } from './support.ts';

let scene: ImportScene;
let house: ZvoldHouse;
beforeEach(async () => {
  scene = await ImportScene.open();
  house = scene.house;
});
afterEach(() => scene.close());

describe('a qcow2', () => {
  const path = (name: string): string => scene.path(name);

  beforeEach(async () => {
    await writeFile(path('content.raw'), sample);
    toQcow2(path('content.raw'), path('disk.qcow2'), '-c');
    house.convert = (argv, options) => {
      options.onOutput?.('    (50.00/100%)\r');
      return convertToFile(argv, options);
    };
  });

  it('is converted, with its progress told', async () => {
    const { id } = await house.imports.start(wanted(), path('disk.qcow2'));
    expect(await house.ended(id)).toMatchObject({ state: 'completed' });
    await scene.expectSample(`tank/.zvold/${id}`);
  });

  it('that a client sends is kept until it is read, and no longer', async () => {
    const bytes = await readFile(path('disk.qcow2'));
    async function* pieces(): AsyncGenerator<Buffer> {
      for (let at = 0; at < bytes.length; at += 10_000)
        yield await Promise.resolve(bytes.subarray(at, at + 10_000));
    }
    const job = await house.imports.upload(wanted(), pieces());
    expect(job).toMatchObject({ state: 'completed', source: 'upload' });
    await scene.expectSample(`tank/.zvold/${job.id}`);
    expect(await readdir(join(house.folder, 'state', 'spool'))).toEqual([]);
  });

  it.each([
    ['stands on another file', ['create', '-f', 'qcow2', '-b', '/etc/passwd', '-F', 'raw'], 'backing file'],
    [
      'has its content elsewhere',
      ['create', '-f', 'qcow2', '-o', 'data_file=DATA,data_file_raw=on'],
      'in another file',
    ],
  ])('that %s is refused before anything is made', async (_, words, why) => {
    const create = words.map((word) => word.replace('DATA', path('data')));
    call('qemu-img', create[0] ?? '', '-q', ...create.slice(1), path('bad.qcow2'), '1M');
    house.convert = () => Promise.reject(new Error('it was read'));
    const { id } = await house.imports.start(wanted(), path('bad.qcow2'));
    expect((await house.ended(id)).error).toContain(why);
    await house.expectNothingLeft();
  });

  it.each([
    ['of another version', 4, [0, 0, 0, 9], 'version 9'],
    ['that is encrypted', 32, [0, 0, 0, 2], 'encrypted'],
    ['of 2^63 bytes', 24, [0x80, 0, 0, 0, 0, 0, 0, 0], 'makes no sense'],
    ['with clusters that make no sense', 20, [0, 0, 0, 40], 'make no sense'],
    ['with features that nobody knows', 72, [0xff, 0, 0, 0, 0, 0, 0, 0], 'features'],
  ])('%s is refused', async (_, offset, bytes, why) => {
    const start = await readFile(path('disk.qcow2'));
    Buffer.from(bytes).copy(start, offset);
    await writeFile(path('bad.qcow2'), start);
    const { id } = await house.imports.start(wanted(), path('bad.qcow2'));
    expect((await house.ended(id)).error).toContain(why);
    await house.expectNothingLeft();
  });

  it('that ends too early fails in the words of its reader', async () => {
    house.convert = () =>
      Promise.resolve({
        exitCode: 1,
        stdout: '',
        stderr: 'qemu-img: error while reading at byte 0: Input/output error\n',
      });
    const { id } = await house.imports.start(wanted(), path('disk.qcow2'));
    expect((await house.ended(id)).error).toContain('error while reading at byte 0');
    await house.expectNothingLeft();
  });

  it('is cancelled while it is converted, and leaves nothing', async () => {
    const converting = new Promise<void>((begun) => {
      house.convert = (_, { signal, onOutput }) => {
        onOutput?.('(1.00/100%)');
        begun();
        return new Promise((__, reject) =>
          signal?.addEventListener('abort', () => reject(new ZvolError('CANCELLED', 'ended'))),
        );
      };
    });
    const { id } = await house.imports.start(wanted(), path('disk.qcow2'));
    await converting;
    expect(house.imports.get(id).state).toBe('converting');
    expect(await house.imports.cancel(id)).toBe(true);
    await house.expectNothingLeft();
  });
});
