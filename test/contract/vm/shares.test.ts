import { spawnSync } from 'node:child_process';
import { chmod, mkdir, readFile, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { parseName } from '../../../src/core/names.ts';
import { resolveSpec } from '../../../src/template/resolve.ts';
import type { ShareDevice } from '../../../src/template/storage.ts';
import type { Instance } from '../../../src/vm/instance.ts';
import { checkShare } from '../../../src/vm/shares.ts';
import { newState } from '../../../src/vm/state.ts';
import { findVirtiofsd, serveShares, virtiofsdArgv } from '../../../src/vm/virtiofsd.ts';
import { testContext, type TestContext } from '../../support/context.ts';

let ctx: TestContext;
let bin: string;

beforeEach(async () => {
  ctx = await testContext();
  bin = join(ctx.folder, 'bin');
  await mkdir(bin);
  await mkdir(join(ctx.folder, 'shared'));
});
afterEach(() => ctx.remove());

const share = (more: Partial<ShareDevice> = {}): ShareDevice => ({
  type: 'virtfs',
  name: 'work',
  path: join(ctx.folder, 'shared'),
  mountTag: 'work',
  protocol: 'virtiofs',
  securityModel: 'mapped-xattr',
  readonly: false,
  mountAt: '/mnt/work',
  ...more,
});

/** A program that takes the real one's options, opens the socket, and stays until it is ended. */
async function fakeServer(help: string, behaviour: string): Promise<TestContext> {
  const file = join(bin, 'virtiofsd');
  await writeFile(
    file,
    `#!${process.execPath}
if (process.argv.includes('--help')) { console.log(${JSON.stringify(help)}); process.exit(0); }
const socket = process.argv.find((word) => word.startsWith('--socket-path=')).slice(14);
require('node:fs').writeFileSync(socket + '.argv', JSON.stringify([process.pid, ...process.argv.slice(2)]));
${behaviour}
`,
  );
  await chmod(file, 0o755);
  const path = `${bin}:${process.env['PATH'] ?? ''}`;
  return testContext({ path, folder: ctx.folder });
}

const rust = '--shared-dir <DIR> --readonly --sandbox <MODE>';
const stays = 'require("node:net").createServer().listen(socket);';

async function machine(...storage: ShareDevice[]): Promise<Instance> {
  const name = parseName('one');
  await mkdir(ctx.paths.instance(name).folder, { recursive: true, mode: 0o700 });
  return { name, spec: { ...(await resolveSpec('zfs-test', { name })), storage }, state: newState('qemu') };
}

describe('the server of a share by virtiofs', () => {
  it('that is missing is named, with its package and the other way', async () => {
    const without = await testContext({ path: bin, folder: ctx.folder });
    await expect(findVirtiofsd(without, [])).rejects.toMatchObject({
      reason: 'dependency',
      exitCode: 5,
      hint: expect.stringMatching(/apt-get install.* virtiofsd\n.*protocol: 9p/) as string,
    });
  });

  it('is found where packages put it, and asked what it can', async () => {
    await fakeServer('-o source=PATH', stays);
    const without = await testContext({ folder: ctx.folder });
    const found = await findVirtiofsd({ ...without, env: { ...without.env, PATH: '/nowhere' } }, ['/x', bin]);
    expect(found).toEqual({ program: join(bin, 'virtiofsd'), kind: 'qemu', canReadOnly: false });
    await expect(findVirtiofsd(await fakeServer(rust, stays))).resolves.toMatchObject({
      kind: 'rust',
      canReadOnly: true,
    });
  });

  it('is told to shut itself in, and to refuse what a share that is only read must not allow', () => {
    const what = { path: '/a,b', readonly: true };
    const server = { program: '/v', kind: 'rust', canReadOnly: true } as const;
    expect(virtiofsdArgv(server, what, '/s', 'namespace')).toEqual([
      ...['/v', '--socket-path=/s', '--shared-dir=/a,b', '--sandbox=namespace', '--readonly'],
    ]);
    expect(virtiofsdArgv({ ...server, kind: 'qemu' }, { ...what, readonly: false }, '/s', 'chroot')).toEqual([
      ...['/v', '--socket-path=/s', '-o', String.raw`source=/a\,b`, '-o', 'sandbox=chroot'],
    ]);
  });

  it('has its socket for the owner alone, and is ended with what it was started for', async () => {
    const own = await fakeServer(rust, stays);
    const instance = await machine(share());
    const { socket } = own.paths.instance(instance.name).share('work');
    const servers = await serveShares(own, instance);
    expect((await stat(socket)).mode & 0o777).toBe(0o600);
    const [pid] = JSON.parse(await readFile(`${socket}.argv`, 'utf8')) as [number];
    const runs = (): boolean => spawnSync('kill', ['-0', String(pid)]).status === 0;
    expect(runs()).toBe(true);
    await servers.end();
    expect(runs()).toBe(false);
  });

  it("that can't begin is told in its own words, and none of the others stays", async () => {
    const behaviour = `
if (socket.includes('second')) { console.error('no room for me'); process.exit(3); }
${stays}`;
    const own = await fakeServer(rust, behaviour);
    const instance = await machine(share(), share({ name: 'second', mountTag: 'second' }));
    await expect(serveShares(own, instance)).rejects.toMatchObject({
      reason: 'process',
      message: expect.stringContaining('exit code 3') as string,
      detail: expect.stringContaining('no room for me') as string,
    });
    const { socket } = own.paths.instance(instance.name).share('work');
    const [pid] = JSON.parse(await readFile(`${socket}.argv`, 'utf8')) as [number];
    expect(spawnSync('kill', ['-0', String(pid)]).status).not.toBe(0);
  });

  it('is not started for shares by 9p', async () => {
    const own = await testContext({ path: bin, folder: ctx.folder });
    const servers = await serveShares(own, await machine(share({ protocol: '9p' })));
    expect(servers.words()).toBe('');
  });
});

describe('a folder that is to be shared', () => {
  const check = (more: Partial<ShareDevice>, own: TestContext = ctx): Promise<void> =>
    checkShare(own, parseName('one'), share(more));

  it('must be there, and be a folder', async () => {
    const gone = join(ctx.folder, 'gone');
    await expect(check({ path: gone, protocol: '9p' })).rejects.toMatchObject({
      reason: 'not-found',
      hint: `mkdir -p ${gone}`,
    });
    await writeFile(gone, '');
    await expect(check({ path: gone, protocol: '9p' })).rejects.toThrow(/is not a folder/);
    await expect(check({ protocol: '9p' })).resolves.toBeUndefined();
  });

  it("is not shared for reading by a server that can't refuse writing", async () => {
    await expect(check({ readonly: true }, await fakeServer('-o source=PATH', stays))).rejects.toMatchObject({
      reason: 'unsupported',
      hint: expect.stringContaining('protocol: 9p') as string,
    });
    await expect(check({ readonly: true }, await fakeServer(rust, stays))).resolves.toBeUndefined();
  });
});
