import { readdir, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { fileServer, type FileServer } from '../../fakes/file-server.ts';
import { shell, temporaryHome, type Shell } from '../../support/zfsdev.ts';
import { disk, sha } from './support.ts';

const content = disk();
const digest = sha(content);

let zfsdev: Shell;
let removeHome: () => Promise<void>;
let server: FileServer | undefined;

beforeEach(async () => {
  const { home, remove } = await temporaryHome();
  zfsdev = shell(home);
  removeHome = remove;
});

afterEach(async () => {
  await server?.close();
  server = undefined;
  await removeHome();
});

describe('zfsdev image pull', () => {
  it('answers with the image, which list, inspect and remove know', async () => {
    server = await fileServer({ content });
    const pull = await zfsdev('image', 'pull', server.url, '--digest', digest, '--json');
    expect(pull.exitCode).toBe(0);
    const lines = pull.stdout.split('\n').map((line) => JSON.parse(line) as Record<string, unknown>);
    const name = digest.replace('sha256:', '');
    expect(lines.at(-1)).toMatchObject({
      type: 'result',
      digest: name,
      kind: 'pulled',
      location: server.url,
    });
    expect(lines.map(({ step }) => step)).toContain('image');
    expect((await zfsdev('image', 'list')).stdout).toMatch(/pulled .*disk\.img/);
    expect((await zfsdev('image', 'inspect', name.slice(0, 8))).stdout).toContain(
      `from            ${server.url}`,
    );
    expect((await zfsdev('image', 'remove', name.slice(0, 8))).exitCode).toBe(0);
    expect(JSON.parse((await zfsdev('image', 'list', '--json')).stdout)).toEqual({ images: [] });
  });

  it('by Ctrl-C says what is kept, and goes on with it', async () => {
    server = await fileServer({ content, stallAfter: 600_000 }, { content });
    const begun = zfsdev.begin('image', 'pull', server.url, '--digest', digest, '--json');
    await begun.until('of 1.13 MiB');
    begun.kill('SIGINT');
    const { exitCode, stdout } = await begun.result;
    expect(exitCode).toBe(130);
    expect(stdout).toMatch(/KiB of 1\.13 MiB are kept: the same command goes on from there/);
    const again = await zfsdev('image', 'pull', server.url, '--digest', digest);
    expect(again.stderr).toMatch(/going on after the [\d.]+ KiB that came before/);
    expect(again.exitCode).toBe(0);
    expect(server.requests[1]).toMatch(/^bytes=\d+- of "/);
  });

  it.each([
    [['https://example.invalid/x.img'], 'an image from the network needs --digest'],
    [['x.img', '--digest', 'sha256:12'], '--digest: "sha256:12" is not a digest'],
    [['ftp://example.invalid/x.img'], "can't be fetched by ftp"],
  ])('%j is refused with exit 2', async (args, words) => {
    const { exitCode, stderr } = await zfsdev('image', 'pull', ...args);
    expect(stderr).toContain(words);
    expect(stderr).toContain('next:');
    expect(exitCode).toBe(2);
    expect(await readdir(zfsdev.home)).toEqual([]);
  });

  it('under --dry-run tells, and fetches nothing', async () => {
    server = await fileServer({ content });
    const { exitCode, stderr } = await zfsdev('image', 'pull', server.url, '--digest', digest, '--dry-run');
    expect(stderr).toContain(`would pull ${server.url}`);
    expect(exitCode).toBe(0);
    expect(server.requests).toEqual([]);
  });
});

describe('zfsdev up with a cloud image', () => {
  const template = (image: string): string =>
    [
      'description: mine',
      'cpus: 1',
      'memory: 256MiB',
      'disk: 32MiB',
      `image: ${image}`,
      'worstCase: {base: 1MB}',
      '',
    ].join('\n');

  async function up(image: string): Promise<{ exitCode: number | null; stderr: string }> {
    const file = join(zfsdev.home, '../', `zfsdev-mine-${process.pid}.yaml`);
    await writeFile(file, template(image));
    try {
      return await zfsdev('up', file, '--name', 'm1');
    } finally {
      await rm(file);
    }
  }

  async function expectNothingMade(): Promise<void> {
    expect(await readdir(join(zfsdev.home, 'instances')).catch(() => [])).toEqual([]);
  }

  it('whose digest is another leaves nothing', async () => {
    server = await fileServer({ content });
    const wrong = `sha256:${'0'.repeat(64)}`;
    const { exitCode, stderr } = await up(`{location: "${server.url}", digest: "${wrong}", firmware: bios}`);
    expect(stderr).toContain('is not the image that was asked for: its digest is another');
    expect(stderr).toContain(digest);
    expect(exitCode).toBe(1);
    await expectNothingMade();
  });

  it('that is larger than the disk is refused with the size that would do', async () => {
    server = await fileServer({ content });
    const { exitCode, stderr } = await up(`{location: "${server.url}", digest: "${digest}", firmware: bios}`);
    expect(stderr).toContain('a disk of 32MiB is smaller than the image, which has 64MiB');
    expect(stderr).toContain('next: --disk 64MiB');
    expect(exitCode).toBe(2);
    await expectNothingMade();
  });

  it('that is for another architecture is refused before anything is fetched', async () => {
    server = await fileServer({ content });
    const other = process.arch === 'x64' ? 'aarch64' : 'x86_64';
    const { exitCode, stderr } = await up(`{location: "${server.url}", digest: "${digest}", arch: ${other}}`);
    expect(stderr).toContain(`is for ${other}, and this host is`);
    expect(exitCode).toBe(4);
    expect(server.requests).toEqual([]);
    await expectNothingMade();
  });
});
