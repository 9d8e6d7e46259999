import { copyFile, mkdir, readFile, stat, utimes, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { PulledImage } from '../../../src/image/pulled.ts';
import { pullImage, wantedImage } from '../../../src/vm/pull.ts';
import { fakePrograms, type FakePrograms } from '../../fakes/programs.ts';
import { header } from '../../support/qcow2.ts';
import { testContext, type TestContext } from '../../support/context.ts';
import { disk, failureOf, sha, stored } from './support.ts';

let ctx: TestContext;
let file: string;

beforeEach(async () => {
  ctx = await testContext({ path: '/nowhere' });
  file = join(ctx.folder, 'my image.img');
});

afterEach(() => ctx.remove());

async function pull(digest?: string, location = file, by: TestContext = ctx): Promise<PulledImage> {
  return pullImage(by, await wantedImage({ location, digest }), { overcommit: false });
}

describe('a file of this host', () => {
  it('is copied, and told by its digest', async () => {
    const content = disk();
    await writeFile(file, content);
    const image = await pull();
    expect(`sha256:${image.digest}`).toBe(sha(content));
    expect((await readFile(image.disk)).equals(content)).toBe(true);
    expect((await stat(image.disk)).mode & 0o777).toBe(0o600);
    expect((await readFile(file)).equals(content)).toBe(true);
  });

  it('is not read again as long as nobody wrote to it', async () => {
    const [once, later] = [new Date(1e12), new Date(1e12 + 1000)];
    await writeFile(file, disk());
    await utimes(file, once, once);
    const first = await pull();
    await writeFile(file, disk());
    // As if it were the one of before: only reading it could tell.
    await utimes(file, once, once);
    expect((await pull()).digest).toBe(first.digest);
    await utimes(file, later, later);
    expect((await pull()).digest).not.toBe(first.digest);
    expect(await stored(ctx)).toHaveLength(2);
  });

  it('is one image under two names', async () => {
    await writeFile(file, disk());
    const other = join(ctx.folder, 'other.img');
    await copyFile(file, other);
    const first = await pull();
    expect((await pull(undefined, other)).digest).toBe(first.digest);
    expect(await stored(ctx)).toEqual([first.digest]);
  });

  it('need not be there any more if its digest is told', async () => {
    const content = disk();
    await writeFile(file, content);
    const image = await pull();
    expect((await pull(sha(content), '/gone.img')).digest).toBe(image.digest);
  });

  it('of another digest is refused', async () => {
    await writeFile(file, disk());
    const failure = await failureOf(pull(`sha512:${'0'.repeat(128)}`));
    expect(failure.detail).toMatch(/^found {3}sha512:[0-9a-f]{128}\nwanted {2}sha512:0+$/);
    expect(await stored(ctx)).toEqual([]);
  });

  it('that is raw is kept as qcow2', async () => {
    const raw = Buffer.alloc(2 ** 20);
    raw.writeUInt16BE(0x55aa, 510);
    await writeFile(file, raw);
    const target = new RegExp(`^${ctx.paths.images}/\\.building-[0-9a-f-]+/disk\\.qcow2$`);
    const qemuImg = { calls: [{ argv: ['convert', '-f', 'raw', '-O', 'qcow2', file, target] }] };
    const fakes: FakePrograms = await fakePrograms({ 'qemu-img': qemuImg, setpriv: { calls: [] } });
    try {
      const withFakes = await testContext({ path: fakes.path, folder: ctx.folder });
      // The fake makes no file: what it was asked for is what counts.
      await pull(undefined, file, withFakes).catch(() => undefined);
      expect((await fakes.calls()).map(([program]) => program)).toContain(
        process.platform === 'linux' ? 'setpriv' : 'qemu-img',
      );
    } finally {
      await fakes.remove();
    }
  });
});

describe('what no machine can stand on is refused, and nothing is kept', () => {
  const encrypted = header(2 ** 20);
  encrypted.writeUInt32BE(2, 32);
  const cd = Buffer.alloc(0x9000);
  cd.write('CD001', 0x8001, 'latin1');
  cd.writeUInt16BE(0x55aa, 510);
  const external = header(2 ** 20, { features: 4n });

  it.each<[string, Buffer, string]>([
    [
      'a qcow2 on another file',
      header(2 ** 20, { backing: '/etc/shadow' }),
      'stands on another file, /etc/shadow',
    ],
    ['a qcow2 whose data is elsewhere', external, 'has its data in another file'],
    ['an encrypted qcow2', encrypted, 'is encrypted'],
    ['a corrupt qcow2', header(2 ** 20, { corrupt: true }), 'is marked as corrupt'],
    ['half a header', header(2 ** 20).subarray(0, 80), 'is damaged, or cut off'],
    ['a qcow2 that leads out of its file', header(2 ** 40).subarray(0, 65_536), 'is damaged, or cut off'],
    ['a CD', cd, 'is a CD'],
    ['an empty file', Buffer.alloc(0), 'is no disk image'],
    ['a text', Buffer.from('hello\n'), 'is no disk image'],
    ['zeros', Buffer.alloc(2 ** 20), 'is no disk image'],
    ['a packed file', gzipSync('x'), 'is compressed with gzip'],
  ])('%s', async (_, content, words) => {
    await writeFile(file, content);
    const failure = await failureOf(pull());
    expect(failure).toMatchObject({ reason: 'image', exitCode: 1 });
    expect(failure.message).toContain(words);
    expect(failure.message).toContain(file);
    expect(await stored(ctx)).toEqual([]);
  });

  it('a folder', async () => {
    await mkdir(file);
    expect((await failureOf(pull())).message).toContain('is a folder');
  });

  it('a file that is not there', async () => {
    expect(await failureOf(pull())).toMatchObject({ reason: 'not-found', exitCode: 4 });
  });
});
