import { readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { formatBytes } from '../../../src/core/bytes.ts';
import type { PulledImage } from '../../../src/image/pulled.ts';
import { listImages, planPrune } from '../../../src/image/store.ts';
import { pullImage } from '../../../src/vm/pull.ts';
import { fileServer, type Behaviour, type FileServer } from '../../fakes/file-server.ts';
import { testContext, type TestContext } from '../../support/context.ts';
import { disk, failureOf, sha, stored } from './support.ts';

const content = disk();
const digest = sha(content);
const name = digest.replace('sha256:', '');
const tag = `"${name}"`;

let ctx: TestContext;
let server: FileServer;

/** A server that answers one request after the other so, and all others as the last. */
async function serve(...answers: readonly Partial<Behaviour>[]): Promise<void> {
  server = await fileServer(...(answers.length > 0 ? answers : [{}]).map((one) => ({ content, ...one })));
}

/** Pulls without waiting long between attempts. */
function pull(
  wanted: string | undefined = digest,
  { by = ctx, stallAfter = 10_000 }: { by?: TestContext; stallAfter?: number } = {},
): Promise<PulledImage> {
  return pullImage(
    by,
    { location: server.url, digest: wanted },
    { overcommit: false, patience: { stallAfter, pause: 1 } },
  );
}

/** The byte that a request goes on from; 0 where it is for the whole, or for a rest of something else. */
function startOf(request: string | undefined): number {
  const match = /^bytes=(\d+)- of (.*)$/.exec(request ?? '');
  return match?.[2] === tag ? Number(match[1]) : 0;
}

beforeEach(async () => {
  // Nothing but what the test sees on the network: no program is called.
  ctx = await testContext({ path: '/nowhere' });
});

afterEach(async () => {
  await server.close();
  await ctx.remove();
});

async function expectWhole(image: PulledImage): Promise<void> {
  expect((await readFile(image.disk)).equals(content)).toBe(true);
  expect((await stat(image.disk)).mode & 0o777).toBe(0o600);
  expect(await stored(ctx)).toEqual([image.digest]);
}

describe('an image that is pulled', () => {
  it('lies among the images under its digest, and is pulled once', async () => {
    await serve();
    const image = await pull();
    expect(image).toMatchObject({ digest: name, folder: join(ctx.paths.images, name) });
    expect(image.manifest).toMatchObject({
      kind: 'pulled',
      location: server.url,
      sourceFormat: 'qcow2',
      virtualBytes: 64 * 2 ** 20,
    });
    await expectWhole(image);
    expect(await listImages(ctx.paths.images)).toMatchObject([{ state: 'whole', image: { kind: 'pulled' } }]);
    await pull();
    expect(server.requests).toEqual(['whole']);
  });

  it('is told by a sha512 as well, and is one image under both', async () => {
    await serve();
    const bySha512 = await pull(sha(content, 'sha512'));
    expect(bySha512.digest).toBe(name);
    await pull();
    await pull(sha(content, 'sha512'));
    expect(server.requests).toHaveLength(1);
  });

  it('is kept once though it is asked for by another digest than before', async () => {
    await serve();
    await pull();
    await expectWhole(await pull(sha(content, 'sha512')));
    expect(server.requests).toHaveLength(2);
    await pull(sha(content, 'sha512'));
    expect(server.requests).toHaveLength(2);
  });

  it('is found where the address leads', async () => {
    await serve({ redirects: true });
    await expectWhole(await pull());
  });

  it('tells how far it is and how fast', async () => {
    await serve();
    await pull();
    const words = ctx.events.flatMap((event) => (event.type === 'step-progress' ? [event.text] : []));
    expect(words).toContainEqual(expect.stringMatching(/of 1\.13 MiB/));
    expect(words.at(-1)).toBe('verifying: 1.13 MiB of 1.13 MiB');
  });

  it('by two at once is fetched once', async () => {
    await serve();
    const images = await Promise.all([pull(), pull()]);
    expect(new Set(images.map((image) => image.digest)).size).toBe(1);
    expect(server.requests).toHaveLength(1);
  });
});

describe('a download that is cut off', () => {
  const half = 600_000;

  it('goes on by itself from where it was', async () => {
    await serve({ cutAfter: half }, {});
    await expectWhole(await pull());
    expect(server.requests).toEqual(['whole', expect.anything()]);
    // What was on the way when the connection ended may have got lost with it.
    expect(startOf(server.requests[1])).toBeGreaterThan(0);
    expect(startOf(server.requests[1])).toBeLessThanOrEqual(half);
  });

  it('any number of times, as long as something comes', async () => {
    await serve({ cutAfter: 100_000 });
    await expectWhole(await pull());
    expect(server.requests.length).toBeGreaterThanOrEqual(Math.ceil(content.length / 100_000));
  });

  it('for good tells how much is kept, and the next pull goes on from there', async () => {
    await serve({ cutAfter: half }, { status: 503 });
    const failure = await failureOf(pull());
    expect(failure).toMatchObject({ reason: 'image', exitCode: 1 });
    expect(failure.message).toContain('cut off');
    const kept = failure.data?.['bytes'] as number;
    expect(kept).toBeGreaterThan(0);
    expect(failure.hint).toContain(`${formatBytes(kept)} of 1.13 MiB are kept: the same command goes on`);
    server.behave({ content });
    server.requests.length = 0;
    await expectWhole(await pull());
    expect(server.requests.map(startOf)).toEqual([kept]);
  });

  it('begins anew on a server that sends no parts', async () => {
    await serve({ cutAfter: half }, { ranges: false });
    await expectWhole(await pull());
    expect(server.requests).toHaveLength(2);
  });

  it('begins anew where the server does not tell one state of the file from another', async () => {
    await serve({ cutAfter: half, etag: null }, { etag: null });
    await expectWhole(await pull());
    expect(server.requests).toEqual(['whole', 'whole']);
  });

  it('ends on a server that always cuts at the same place and sends no parts', async () => {
    await serve({ cutAfter: half, ranges: false });
    expect(await failureOf(pull())).toMatchObject({ reason: 'image' });
    expect(server.requests.length).toBeLessThan(10);
  });

  it('is not gone on with when the file is another one now', async () => {
    await serve({ content: disk(), cutAfter: half }, {});
    await expectWhole(await pull());
  });

  it('by silence is taken up again', async () => {
    await serve({ stallAfter: half }, {});
    await expectWhole(await pull(digest, { stallAfter: 300 }));
    expect(server.requests).toEqual(['whole', `bytes=${half}- of ${tag}`]);
    const notices = ctx.events.flatMap((event) => (event.type === 'notice' ? [event.text] : []));
    expect(notices[0]).toContain('no byte came for 0.3 s');
  });

  it('by silence for good ends', async () => {
    await serve({ stallAfter: 0 });
    const failure = await failureOf(pull(digest, { stallAfter: 300 }));
    expect(failure.message).toContain('no byte came for 0.3 s');
    expect(failure.exitCode).toBe(1);
  });

  it('by an interrupt is kept, and prune takes it away', async () => {
    await serve({ stallAfter: half });
    const abort = new AbortController();
    const other = await testContext({ folder: ctx.folder, path: '/nowhere', signal: abort.signal });
    const begun = pull(digest, { by: other });
    await expect.poll(() => server.sent()).toBeGreaterThan(0);
    await expect
      .poll(async () => (await planPrune(ctx.paths.images, new Set())).actual)
      .toBeGreaterThan(half / 2);
    abort.abort();
    const failure = await failureOf(begun);
    expect(failure).toMatchObject({ reason: 'interrupted', exitCode: 130 });
    expect(failure.hint).toContain('are kept: the same command goes on from there');
    expect((await planPrune(ctx.paths.images, new Set())).files).toEqual([
      expect.stringContaining('.pulling-') as string,
    ]);
  });
});

describe('what is not the image that was asked for', () => {
  it('by its digest is refused, and nothing of it is kept', async () => {
    await serve();
    const wanted = `sha256:${'0'.repeat(64)}`;
    const failure = await failureOf(pull(wanted));
    expect(failure).toMatchObject({ reason: 'image', exitCode: 1 });
    expect(failure.detail).toBe(`found   ${digest}\nwanted  ${wanted}`);
    expect(await stored(ctx)).toEqual([]);
  });

  it.each([
    ['a web page', Buffer.from('<!DOCTYPE html>'), 'is a web page'],
    ['packed', Buffer.from('fd377a585a00', 'hex'), 'unxz disk.img && zfsdev image pull disk.img'],
  ])('being %s is refused before all of it came', async (_, start, words) => {
    const long = Buffer.concat([start, Buffer.alloc(64 * 2 ** 20)]);
    await serve({ content: long });
    const failure = await failureOf(pull(sha(long)));
    expect(`${failure.message}\n${failure.hint}`).toContain(words);
    const kept = (await planPrune(ctx.paths.images, new Set())).actual;
    expect(kept).toBeLessThan(2 ** 20);
  });

  it.each([
    [404, 'the server answered 404 Not Found'],
    [403, 'the server answered 403 Forbidden'],
    [500, 'the server answered 500 Internal Server Error'],
  ])('an answer of %i is told', async (status, words) => {
    await serve({ status });
    const failure = await failureOf(pull());
    expect(failure.message).toContain(words);
    expect(failure.message).toContain(server.url);
    expect(failure.exitCode).toBe(1);
  });

  it('a server that is not there is told at once', async () => {
    await serve();
    await server.close();
    const failure = await failureOf(pull());
    expect(failure.message).toContain('ECONNREFUSED');
    expect(failure.hint).toContain('zfsdev image pull FILE');
  });
});

it('what would not fit is refused before a byte of it is written', async () => {
  await serve({ announced: 2 ** 50 });
  const failure = await failureOf(pull());
  expect(failure).toMatchObject({ reason: 'no-space', exitCode: 3 });
  expect(failure.detail).toContain('the image (pulled)');
});
