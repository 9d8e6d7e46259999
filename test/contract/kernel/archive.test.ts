import { readdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { GiB } from '../../../src/core/bytes.ts';
import { Failure } from '../../../src/core/errors.ts';
import { deliver, warnOfRoom } from '../../../src/kernel/archive.ts';
import type { Builder } from '../../../src/kernel/builder.ts';
import { parseRequest } from '../../../src/kernel/request.ts';
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
  };
}

describe('an archive that does not come out', () => {
  const delivery = (fetch: (target: string) => Promise<void>): Promise<unknown> =>
    deliver(ctx, place(fetch), facts, ctx.folder, log);
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
