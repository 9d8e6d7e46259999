import { createHash } from 'node:crypto';
import { copyFile, mkdir, readdir, readFile, rm, stat, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { GiB } from '../../../src/core/bytes.ts';
import { Failure } from '../../../src/core/errors.ts';
import { checkNames, deliver, members, warnOfRoom } from '../../../src/kernel/archive.ts';
import type { Builder } from '../../../src/kernel/builder.ts';
import { parseRequest } from '../../../src/kernel/request.ts';
import { call } from '../../support/call.ts';
import { kernelManifest } from '../../support/kernel-archive.ts';
import { testContext, type TestContext } from '../../support/context.ts';

let ctx: TestContext;
let log: string;

beforeEach(async () => {
  ctx = await testContext();
  log = join(ctx.folder, 'build.log');
  await writeFile(log, 'what was built');
});

afterEach(() => ctx.remove());

const facts = new Map([
  ['archive', 'kernel-1.tar.zst'],
  ['sha256', 'a'.repeat(64)],
]);

/** A place whose archive comes out like this. */
function place(fetch: (target: string) => Promise<void>): Builder {
  const never = (): never => {
    throw new Error('not expected');
  };
  return {
    title: 'a place',
    run: never,
    fetch: (_, target) => fetch(target),
    used: never,
    remove: never,
    afterwards: ['go on: the same command with --resume'],
    anew: 'begin anew',
  };
}

describe('an archive that does not come out', () => {
  const delivery = (fetch: (target: string) => Promise<void>): Promise<unknown> =>
    deliver(ctx, place(fetch), facts, { folder: ctx.folder, overwrite: false }, log);
  const arrived = async (): Promise<string[]> =>
    (await readdir(ctx.folder)).filter((name) => name.includes('kernel-1'));

  it.each<[string, () => unknown]>([
    ['by the word of the system', () => Object.assign(new Error('ENOSPC: write'), { code: 'ENOSPC' })],
    [
      "by the words of this host's tar",
      () =>
        new Failure('process', 'tar ended with 2', {
          detail: 'tar: x: Wrote 0 bytes: No space left on device',
        }),
    ],
  ])('for want of room on this host, %s, waits there until there is some', async (_, cause) => {
    await expect(
      delivery(async (target) => {
        await writeFile(target, 'half of it');
        throw cause();
      }),
    ).rejects.toMatchObject({
      reason: 'no-space',
      message: expect.stringMatching(/kernel-1\.tar\.zst can't be written: no space left/) as string,
      hint: expect.stringMatching(/make room there.*\n.*--resume/) as string,
    });
    expect(await arrived()).toEqual([]);
  });

  it('because the machine is lost tells the way on', async () => {
    const lost = new Failure('guest', 'the connection was lost', { hint: 'zfsdev inspect it' });
    await expect(delivery(() => Promise.reject(lost))).rejects.toMatchObject({
      reason: 'guest',
      hint: 'zfsdev inspect it\ngo on: the same command with --resume',
    });
  });

  it('as it was packed is not kept', async () => {
    await expect(delivery((target) => writeFile(target, 'something else'))).rejects.toMatchObject({
      reason: 'files',
      message: expect.stringContaining('is not the one that was packed') as string,
    });
    expect(await arrived()).toEqual([]);
  });
});

describe('an archive that comes out', () => {
  let output: string;
  let archive: string;
  let said: Map<string, string>;
  const at = (name: string): string => join(output, name);
  const names = ['kernel-1.log', 'kernel-1.tar.zst'];

  beforeEach(async () => {
    output = join(ctx.folder, 'out');
    const packed = join(ctx.folder, 'packed');
    for (const folder of [output, packed]) await mkdir(folder);
    for (const member of members) await writeFile(join(packed, member), '');
    await writeFile(join(packed, 'manifest.json'), JSON.stringify(kernelManifest));
    archive = join(ctx.folder, 'built');
    call('tar', '-C', packed, '--zstd', '-cf', archive, ...members);
    const sha256 = createHash('sha256')
      .update(await readFile(archive))
      .digest('hex');
    said = new Map([...facts, ['sha256', sha256]]);
  });

  const delivery = (
    overwrite = false,
    fetch = (target: string): Promise<void> => copyFile(archive, target),
  ): Promise<unknown> => deliver(ctx, place(fetch), said, { folder: output, overwrite }, log);
  const refusal = (name: string): object => ({
    reason: 'already-exists',
    message: expect.stringContaining(at(name)) as string,
    hint: expect.stringMatching(/--output.*--overwrite.*--resume\ngo on:/) as string,
  });

  it('is there with its log, for others to read, and nothing else is', async () => {
    await delivery();
    expect((await readdir(output)).sort()).toEqual(names);
    expect((await readFile(at('kernel-1.tar.zst'))).equals(await readFile(archive))).toBe(true);
    expect(await readFile(at('kernel-1.log'), 'utf8')).toBe('what was built');
    for (const name of names) expect((await stat(at(name))).mode & 0o777).toBe(0o666 & ~process.umask());
  });

  it.each(names)('takes the place of nothing: %s is there', async (name) => {
    await writeFile(at(name), 'mine');
    expect(() => checkNames({ folder: output, overwrite: false }, '1', ['go on: so'])).toThrow(at(name));
    await expect(delivery()).rejects.toMatchObject(refusal(name));
    expect(await readdir(output)).toEqual([name]);
    expect(await readFile(at(name), 'utf8')).toBe('mine');
  });

  it.each(['a folder', 'a link that leads nowhere'])(
    'takes the place of nothing, not even of %s',
    async (what) => {
      if (what === 'a folder') await mkdir(at('kernel-1.tar.zst'));
      else await symlink('nowhere', at('kernel-1.tar.zst'));
      await expect(delivery()).rejects.toMatchObject(refusal('kernel-1.tar.zst'));
      expect(await readdir(output)).toEqual(['kernel-1.tar.zst']);
    },
  );

  it('takes the place of nothing that appears while it is copied', async () => {
    const fetch = async (target: string): Promise<void> => {
      await copyFile(archive, target);
      await writeFile(at('kernel-1.tar.zst'), 'mine');
    };
    await expect(delivery(false, fetch)).rejects.toMatchObject({ reason: 'already-exists' });
    expect(await readdir(output)).toEqual(['kernel-1.tar.zst']);
    expect(await readFile(at('kernel-1.tar.zst'), 'utf8')).toBe('mine');
  });

  it('takes the place of an older one and its log if it is told to, once it is whole', async () => {
    for (const name of names) await writeFile(at(name), 'mine');
    expect(() => checkNames({ folder: output, overwrite: true }, '1', [])).not.toThrow();
    await expect(delivery(true, () => Promise.reject(new Error('lost')))).rejects.toThrow('lost');
    for (const name of names) expect(await readFile(at(name), 'utf8')).toBe('mine');
    await delivery(true);
    expect((await readdir(output)).sort()).toEqual(names);
    expect((await readFile(at('kernel-1.tar.zst'))).equals(await readFile(archive))).toBe(true);
    expect(await readFile(at('kernel-1.log'), 'utf8')).toBe('what was built');
  });

  it('may have come out before, cut off before its log', async () => {
    await delivery();
    await rm(at('kernel-1.log'));
    await delivery(false, () => Promise.reject(new Error('it is copied again')));
    expect((await readdir(output)).sort()).toEqual(names);
  });
});

describe('the room for an archive', () => {
  it('is said to be too little before anything is built', async () => {
    const request = await parseRequest({ config: 'debian-cloud' });
    await warnOfRoom(ctx, request, ctx.folder, () => Promise.resolve(GiB));
    expect(ctx.events).toEqual([]);
    await warnOfRoom(ctx, request, ctx.folder, () => Promise.resolve(1000));
    expect(ctx.events).toEqual([
      { type: 'notice', level: 'warning', text: expect.stringContaining('make room') as string },
    ]);
  });
});
