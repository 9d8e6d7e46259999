import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { buildId, parseRequest, type RequestOptions } from '../../../src/kernel/request.ts';

let folder: string;
let file: string;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'zfsdev-request-'));
  file = join(folder, 'linux.tar.xz');
  await writeFile(file, '');
});

afterAll(() => rm(folder, { recursive: true }));

describe('a request for a kernel', () => {
  it("is for Debian's cloud kernel with OpenZFS unless told", async () => {
    expect(await parseRequest({})).toMatchObject({
      source: { kind: 'debian' },
      config: { kind: 'named', name: 'debian-cloud' },
      zfs: { kind: 'debian' },
      localversion: '-zfsdev',
      guest: true,
    });
  });

  it("has a guest's options only with OpenZFS, unless told", async () => {
    expect(await parseRequest({ zfs: 'none' })).toMatchObject({ guest: false });
    expect(await parseRequest({ guestOptions: false })).toMatchObject({ guest: false });
  });

  it.each([
    ['https://a.example/linux.tar.xz', { kind: 'url', url: 'https://a.example/linux.tar.xz' }],
    ['https://a.example/linux.git#v6.12', { kind: 'git', url: 'https://a.example/linux.git', ref: 'v6.12' }],
    ['git+https://a.example/x#main', { kind: 'git', url: 'https://a.example/x', ref: 'main' }],
  ])('reads the source %s', async (source, expected) => {
    expect((await parseRequest({ source })).source).toEqual(expected);
  });

  it('lets a name stand in an address that needs one', async () => {
    const [url, ref] = ['git://git@a.example/x', 'v1@2'];
    await expect(parseRequest({ source: `${url}#v1` })).resolves.toMatchObject({ source: { url } });
    await expect(parseRequest({ source: `https://a.example/x@y.tar.xz` })).resolves.toMatchObject({
      source: { kind: 'url' },
    });
    await expect(parseRequest({ source: `${url}#${ref}` })).rejects.toThrow(/no name/);
  });

  it('reads files and folders', async () => {
    expect((await parseRequest({ source: file })).source).toEqual({ kind: 'archive', path: file });
    expect((await parseRequest({ source: folder })).source).toEqual({ kind: 'folder', path: folder });
    expect((await parseRequest({ config: file })).config).toEqual({ kind: 'file', path: file });
  });

  it.each<[string, RequestOptions, RegExp]>([
    ['a file that is not there', { source: '/no/such' }, /--source: \/no\/such/],
    ['a git address without a ref', { source: 'https://a.example/linux.git' }, /no branch, tag or commit/],
    ['a ref that git would take for an option', { source: 'git://a.example/x#--upload-pack=x' }, /no name/],
    ['an address of another kind', { source: 'ftp://a.example/x' }, /no address/],
    ['an address with a password', { source: 'https://me:secret@a.example/x#v1' }, /would be told/],
    ['an address with a token', { source: 'git+https://token@a.example/x.tar.xz' }, /would be told/],
    ['a password behind another protocol', { source: 'ssh://me:secret@a.example/x#v1' }, /would be told/],
    ["an address that wants the user's keys", { source: 'ssh://git@a.example/x#v1' }, /no key of yours/],
    ['the same as ssh has it', { source: 'git@a.example:linux.git#v1' }, /no key of yours/],
    ['an address of this host', { source: 'git+file:///srv/linux#v1' }, /not see the files of this host/],
    ['a configuration that is none', { config: 'allyes' }, /--config/],
    ['a short checksum', { sha256: 'abc' }, /--sha256/],
    ["a checksum for Debian's source", { sha256: 'a'.repeat(64) }, /--sha256 is for a tarball/],
    ['a localversion with a space', { localversion: '-a b' }, /--localversion/],
    ['a localversion with a quote', { localversion: `-a"b` }, /--localversion/],
    ['an empty localversion', { localversion: '' }, /--localversion/],
    ['no job', { jobs: 0 }, /--jobs/],
    ['OpenZFS that is not there', { zfs: '2.3' }, /--zfs/],
  ])('refuses %s', async (_, options, message) => {
    await expect(parseRequest(options)).rejects.toThrow(message);
  });

  it('has the name of its build, whatever the number of jobs', async () => {
    const [one, two] = [await parseRequest({ jobs: 1 }), await parseRequest({ jobs: 2 })];
    expect(buildId(one, 'vm')).toBe(buildId(two, 'vm'));
    expect(buildId(one, 'vm')).not.toBe(buildId(one, 'chroot'));
    expect(buildId(one, 'vm')).not.toBe(buildId({ ...one, localversion: '-other' }, 'vm'));
  });
});
