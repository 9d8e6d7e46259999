import { status } from '@grpc/grpc-js';
import { createHash, randomBytes } from 'node:crypto';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { fileServer, type FileServer } from '../fakes/file-server.ts';
import { generatedClient, type Answer, type GeneratedClient } from '../support/generated-client.ts';
import { ownHome, removeAll } from '../support/home.ts';
import { scriptInGuest } from '../support/in-guest.ts';
import { toQcow2 } from '../support/qemu-img.ts';
import type { Begun } from '../support/zfsdev.ts';

const zfsdev = ownHome();
const name = 'mvirt';
const MiB = 2 ** 20;
const content = Buffer.concat([randomBytes(3 * MiB), Buffer.alloc(4 * MiB), randomBytes(MiB)]);
let folder: string;
let server: FileServer;
/** Where the host's server is, as the machine's network has it. */
let address: string;
let serving: Begun;
let client: GeneratedClient;

const sha256 = (bytes: Buffer): string => createHash('sha256').update(bytes).digest('hex');
const guest = (script: string): Promise<string> => scriptInGuest(zfsdev, name, script);
const ask = (method: string, request?: object): Promise<Answer> => client.ask(method, request);
const sumOf = (volume: string, bytes = 16 * MiB): Promise<string> =>
  guest(`head -c ${bytes} /dev/zvol/testpool/${volume} | sha256sum | cut -d ' ' -f 1`);

// The host's way to the socket in the machine is that of any program; the client is made of the published contract alone.
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'zfsdev-mvirt-'));
  await writeFile(join(folder, 'disk.raw'), content);
  toQcow2(join(folder, 'disk.raw'), join(folder, 'disk.qcow2'), '-c');
  server = await fileServer({ content: await readFile(join(folder, 'disk.qcow2')) });
  address = server.url.replace('127.0.0.1', '10.0.2.2');
  const up = await zfsdev('up', 'zfs-test', '--name', name);
  if (up.exitCode !== 0) throw new Error(up.stderr);
  const socket = join(folder, 'zvold.sock');
  serving = zfsdev.begin('volume', 'serve', name, socket);
  await serving.until('leads to the volumes');
  client = generatedClient(resolve('proto/mvirt/zfs/zfs.proto'), 'mvirt.zfs.ZfsService', `unix:${socket}`);
});

afterAll(async () => {
  client?.close();
  serving?.kill('SIGTERM');
  await serving?.result;
  await server?.close();
  await removeAll(zfsdev);
  await rm(folder, { recursive: true, force: true });
});

async function expectRefused(
  method: string,
  request: object,
  code: keyof typeof status,
  words: string,
): Promise<void> {
  await expect(ask(method, request)).rejects.toMatchObject({
    code: status[code],
    details: expect.stringContaining(words) as string,
  });
}

/** What an event of a volume says: its size, and its snapshots. */
function wordsOf({ volume }: Answer): string {
  if (!volume) return 'gone';
  const { volsizeBytes, snapshots } = volume as { volsizeBytes: number; snapshots: { name: string }[] };
  return [volsizeBytes / MiB, ...snapshots.map((each) => each.name)].join(' ');
}

/** What an event of a template or of its import says. */
function stateOf({ template, importJob }: Answer): string {
  if (template) return `${(template as { cloneCount: number }).cloneCount} clones`;
  return importJob ? (importJob as { state: string }).state.replace('IMPORT_JOB_STATE_', '') : 'gone';
}

describe('a client made of nothing but the contract of mvirt', () => {
  it('takes a volume through its whole life, and is told every step of it', async () => {
    expect(await ask('GetVersion')).toEqual({ version: (await zfsdev('--version')).stdout });
    const wanted = { name: 'data', sizeBytes: 16 * MiB, volblocksize: 8192, id: 'mine' };
    const created = await ask('CreateVolume', wanted);
    expect(created).toMatchObject({
      id: 'mine',
      name: 'data',
      path: '/dev/zvol/testpool/data',
      volsizeBytes: 16 * MiB,
      volblocksize: 8192,
      snapshots: [],
    });
    expect(await ask('CreateVolume', wanted)).toMatchObject({ id: 'mine' });
    const volumes = client.watch('WatchVolumes');
    const templates = client.watch('WatchTemplates');
    await volumes.until(({ volumeId }) => volumeId === 'mine');

    await guest('head -c 16M /dev/urandom >/dev/zvol/testpool/data && sync');
    const before = await sumOf('data');
    const snapshot = (each: string): object => ({ volumeName: 'data', snapshotName: each });
    const first = await ask('CreateSnapshot', snapshot('first'));
    expect(first).toMatchObject({ name: 'first', fullName: 'testpool/data@first' });
    await guest('head -c 1M /dev/urandom | dd of=/dev/zvol/testpool/data conv=notrunc,fsync status=none');
    expect(await sumOf('data')).not.toBe(before);
    await ask('CreateSnapshot', snapshot('second'));
    const { snapshots } = await ask('ListSnapshots', { volumeName: 'data' });
    expect(snapshots).toMatchObject([{ id: first['id'] }, { name: 'second' }]);
    await expectRefused('RollbackSnapshot', snapshot('first'), 'FAILED_PRECONDITION', '"second"');
    expect(await ask('DeleteSnapshot', snapshot('second'))).toEqual({ deleted: true });
    await ask('RollbackSnapshot', snapshot('first'));
    expect(await sumOf('data')).toBe(before);

    expect(await ask('ResizeVolume', { name: 'data', newSizeBytes: 24 * MiB + 1 })).toMatchObject({
      volsizeBytes: 24 * MiB + 8192,
    });
    expect(await guest('blockdev --getsize64 /dev/zvol/testpool/data')).toBe(String(24 * MiB + 8192));
    const shrunk = { name: 'data', newSizeBytes: MiB };
    await expectRefused('ResizeVolume', shrunk, 'FAILED_PRECONDITION', 'never made smaller');

    const huge = { name: 'huge', sizeBytes: String(2n ** 63n) };
    await expectRefused('CreateVolume', huge, 'INVALID_ARGUMENT', 'no size of a volume');

    const base = await ask('PromoteSnapshotToTemplate', { ...snapshot('first'), templateName: 'base' });
    expect(base).toMatchObject({ name: 'base', sourceVolume: 'data', sizeBytes: 16 * MiB, cloneCount: 0 });
    const clone = { templateName: 'base', newVolumeName: 'copy', sizeBytes: 32 * MiB, id: 'other' };
    expect(await ask('CloneFromTemplate', clone)).toMatchObject({ id: 'other', volsizeBytes: 32 * MiB });
    expect(await sumOf('copy')).toBe(before);
    expect(await ask('ListTemplates')).toMatchObject({ templates: [{ name: 'base', cloneCount: 1 }] });
    await expectRefused('DeleteTemplate', { name: 'base' }, 'FAILED_PRECONDITION', '"copy"');
    await expectRefused('DeleteVolume', { name: 'data' }, 'FAILED_PRECONDITION', '"copy"');
    expect(await ask('GetPoolStats')).toMatchObject({
      name: 'testpool',
      provisionedBytes: 24 * MiB + 8192 + 32 * MiB,
    });

    expect(await ask('DeleteVolume', { name: 'copy' })).toEqual({ deleted: true });
    expect(await ask('DeleteTemplate', { name: 'base' })).toEqual({ deleted: true });
    expect(await ask('DeleteVolume', { name: 'data' })).toEqual({ deleted: true });
    expect(await ask('ListVolumes')).toEqual({ volumes: [] });
    await expectRefused('GetVolume', { name: 'data' }, 'NOT_FOUND', '"data"');

    await volumes.until((event) => event['volumeId'] === 'mine' && wordsOf(event) === 'gone');
    await templates.until((event) => stateOf(event) === 'gone');
    const told = (id: string): string[] =>
      volumes.answers.filter(({ volumeId }) => volumeId === id).map(wordsOf);
    const grown = String(24 + 8192 / MiB);
    expect(told('mine')).toEqual([
      ...['16', '16 first', '16 first second', '16 first', '16 first', `${grown} first`],
      // Its clone came, and went.
      ...[`${grown} first`, `${grown} first`, 'gone'],
    ]);
    expect(told('other')).toEqual(['32', 'gone']);
    expect(templates.answers.map(stateOf)).toEqual(['0 clones', '1 clones', '0 clones', 'gone']);
    for (const each of [volumes, templates]) each.end();
  });

  it('imports a real qcow2 of a server, and is told how far that is', async () => {
    const templates = client.watch('WatchTemplates');
    const { id, ...begun } = await ask('ImportTemplate', {
      name: 'disk',
      source: address,
      sizeBytes: 16 * MiB,
    });
    expect(begun).toMatchObject({ templateName: 'disk', source: address });
    await templates.until((event) => stateOf(event) === 'COMPLETED');
    const job = await ask('GetImportJob', { id });
    expect(job).toMatchObject({
      state: 'IMPORT_JOB_STATE_COMPLETED',
      template: { id, name: 'disk', sizeBytes: 16 * MiB, cloneCount: 0 },
    });
    expect(job['bytesWritten']).toBe(job['totalBytes']);
    expect(await ask('ListImportJobs', { includeCompleted: true })).toMatchObject({ jobs: [{ id }] });
    expect(await ask('ListImportJobs')).toEqual({ jobs: [] });
    await ask('CloneFromTemplate', { templateName: 'disk', newVolumeName: 'web' });
    expect(await sumOf('web', content.length)).toBe(sha256(content));
    const states = templates.answers.filter(({ templateId }) => templateId === id).map(stateOf);
    for (const state of ['PENDING', 'DOWNLOADING', 'CONVERTING']) expect(states).toContain(state);
    expect(states.indexOf('0 clones')).toBeLessThan(states.indexOf('COMPLETED'));
    await ask('DeleteVolume', { name: 'web' });
    await ask('DeleteTemplate', { name: 'disk' });
    await templates.until((event) => event['templateId'] === id && stateOf(event) === 'gone');
    templates.end();
  });

  it('calls off an import, and is told why one failed; neither leaves anything', async () => {
    server.behave({ content, stallAfter: MiB });
    const { id } = await ask('ImportTemplate', { name: 'disk', source: address });
    expect(await ask('CancelImportJob', { id })).toEqual({ cancelled: true });
    expect(await ask('GetImportJob', { id })).toMatchObject({ state: 'IMPORT_JOB_STATE_CANCELLED' });
    server.behave({ content, status: 404 });
    const templates = client.watch('WatchTemplates');
    await ask('ImportTemplate', { name: 'disk', source: address });
    const failed = await templates.until((event) => stateOf(event) === 'FAILED');
    expect(failed['importJob']).toMatchObject({
      error: expect.stringContaining('answered 404') as string,
      completedAt: expect.stringMatching(/^\d{4}-/) as string,
    });
    templates.end();
    const refused = { name: 'disk', source: '/etc/passwd' };
    await expectRefused('ImportTemplate', refused, 'PERMISSION_DENIED', '/etc/passwd');
    expect(await guest('zfs list -H -o name -t all; ls /dev/zvol/testpool 2>/dev/null || true')).toBe(
      'testpool\ntestpool/.zvold',
    );
  });
});
