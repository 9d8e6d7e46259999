import { status } from '@grpc/grpc-js';
import { mkdir, writeFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { setImmediate as turn } from 'node:timers/promises';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { inventory } from '../../../src/zvold/keeper.ts';
import { listen, type Listener } from '../../../src/zvold/server.ts';
import { generatedClient, type Answer, type GeneratedClient } from '../../support/generated-client.ts';
import { ZvoldHouse } from './support.ts';

const MiB = 2 ** 20;
let house: ZvoldHouse;
let listener: Listener;
let client: GeneratedClient;
const reports: string[] = [];

beforeEach(async () => {
  house = await ZvoldHouse.open();
  await mkdir(join(house.folder, 'images'));
  reports.length = 0;
  const { keeper, imports, exports } = house;
  const report = (words: string): void => void reports.push(words);
  const daemon = { keeper, imports, exports, version: '1.2.3', openzfs: '2.3.9', report };
  const socket = join(house.folder, 's');
  listener = await listen(daemon, { socket });
  client = generatedClient(resolve('proto/mvirt/zfs/zfs.proto'), 'mvirt.zfs.ZfsService', `unix:${socket}`);
});

afterEach(async () => {
  client.close();
  await listener.close();
  await house.close();
  expect(reports).toEqual([]);
});

it('the contract of mvirt is spoken with a client made of nothing else', async () => {
  const { ask } = client;
  expect(await ask('GetVersion')).toEqual({ version: '1.2.3' });
  const volume = await ask('CreateVolume', { name: 'data', sizeBytes: MiB, id: 'mine' });
  expect(volume).toMatchObject({
    id: 'mine',
    name: 'data',
    path: '/dev/zvol/tank/data',
    volsizeBytes: MiB,
    volblocksize: 16_384,
  });
  expect(volume['createdAt']).toMatch(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/);
  await ask('CreateSnapshot', { volumeName: 'data', snapshotName: 'first' });
  const template = { volumeName: 'data', snapshotName: 'first', templateName: 'base' };
  expect(await ask('PromoteSnapshotToTemplate', template)).toMatchObject({
    name: 'base',
    snapshotPath: 'tank/data@first',
    cloneCount: 0,
  });
  await ask('CloneFromTemplate', { templateName: 'base', newVolumeName: 'copy' });
  expect(await ask('ListTemplates')).toMatchObject({ templates: [{ cloneCount: 1 }] });
  await expect(ask('DeleteTemplate', { name: 'base' })).rejects.toMatchObject({
    code: status.FAILED_PRECONDITION,
  });
  await expect(ask('ResizeVolume', { name: 'data', newSizeBytes: 4096 })).rejects.toMatchObject({
    code: status.FAILED_PRECONDITION,
  });
  expect(await ask('DeleteVolume', { name: 'copy' })).toEqual({ deleted: true });
  await expect(ask('GetImportJob', { id: 'none' })).rejects.toMatchObject({ code: status.NOT_FOUND });
});

it('WatchVolumes tells what is there, every change, and what is gone by its absence', async () => {
  const { ask } = client;
  await ask('CreateVolume', { name: 'data', sizeBytes: MiB, id: 'mine' });
  const seen = client.watch('WatchVolumes');
  await seen.until(({ volumeId }) => volumeId === 'mine');
  await ask('CreateSnapshot', { volumeName: 'data', snapshotName: 'first' });
  await ask('ResizeVolume', { name: 'data', newSizeBytes: 2 * MiB });
  await ask('RollbackSnapshot', { volumeName: 'data', snapshotName: 'first' });
  await ask('DeleteSnapshot', { volumeName: 'data', snapshotName: 'first' });
  await ask('DeleteVolume', { name: 'data' });
  await seen.until(({ volume }) => volume === undefined);
  seen.end();
  const wordsOf = (volume: unknown): unknown => {
    const { volsizeBytes, snapshots } = volume as { volsizeBytes: number; snapshots: { name: string }[] };
    return [volsizeBytes / MiB, ...snapshots.map(({ name }) => name)].join(' ');
  };
  expect(seen.answers.map(({ volume }) => (volume ? wordsOf(volume) : 'gone'))).toEqual([
    ...['1', '1 first', '2 first', '1 first', '1', 'gone'],
  ]);
  expect(seen.answers[0]?.['timestamp']).toBeGreaterThan(1_700_000_000);
});

it('ImportTemplate ends in a template, and WatchTemplates tells how', async () => {
  const { ask } = client;
  await writeFile(join(house.folder, 'images', 'disk.raw'), Buffer.alloc(MiB, 'zfsdev'));
  await ask('CreateVolume', { name: 'data', sizeBytes: MiB });
  await ask('CreateSnapshot', { volumeName: 'data', snapshotName: 'first' });
  const promoted = { volumeName: 'data', snapshotName: 'first', templateName: 'base' };
  await ask('PromoteSnapshotToTemplate', promoted);
  const seen = client.watch('WatchTemplates');
  await seen.until(({ template }) => template !== undefined);
  const source = join(house.folder, 'images', 'disk.raw');
  const begun = await ask('ImportTemplate', { name: 'disk', source, sizeBytes: 2 * MiB });
  expect(begun).toMatchObject({ templateName: 'disk', source, state: 'IMPORT_JOB_STATE_PENDING' });
  const of = (id: unknown) =>
    seen.answers
      .filter(({ templateId }) => templateId === id)
      .map(({ template, importJob }) =>
        template ? 'template' : ((importJob as { state?: string } | undefined)?.state ?? 'gone'),
      );
  const ended = 'IMPORT_JOB_STATE_COMPLETED';
  await seen.until(({ importJob }) => (importJob as { state?: string } | undefined)?.state === ended);
  expect(await ask('GetImportJob', { id: begun['id'] })).toMatchObject({
    state: ended,
    totalBytes: MiB,
    bytesWritten: MiB,
    template: { name: 'disk', sizeBytes: 2 * MiB, sourceVolume: '', cloneCount: 0 },
    completedAt: expect.stringMatching(/^\d{4}-.*Z$/) as string,
  });
  expect(await ask('ListImportJobs')).toEqual({ jobs: [] });
  expect(await ask('DeleteTemplate', { name: 'disk' })).toEqual({ deleted: true });
  await seen.until(
    ({ templateId, template, importJob }) => templateId === begun['id'] && !template && !importJob,
  );
  seen.end();
  // Its progress may be told any number of times.
  const states = of(begun['id']);
  expect([states[0], ...states.slice(-3)]).toEqual([
    ...['IMPORT_JOB_STATE_PENDING', 'template', ended, 'gone'],
  ]);
});

it('an import that is called off or fails is told to be so', async () => {
  const { ask } = client;
  house.fake.before = (argv) =>
    argv.join(' ').startsWith('zfs create -s') ? new Promise(() => undefined) : undefined;
  const source = join(house.folder, 'images', 'disk.raw');
  await expect(ask('ImportTemplate', { name: 'disk', source })).rejects.toMatchObject({
    code: status.NOT_FOUND,
  });
  await writeFile(source, 'this is no qcow2');
  await writeFile(source, Buffer.from('QFI\xfb', 'latin1'));
  const { id } = await ask('ImportTemplate', { name: 'disk', source });
  const failed = 'IMPORT_JOB_STATE_FAILED';
  await expect
    .poll(async () => (await ask('GetImportJob', { id }))['state'], { timeout: 30_000 })
    .toBe(failed);
  expect(await ask('CancelImportJob', { id })).toEqual({ cancelled: false });
  expect(await ask('ListImportJobs', { includeCompleted: true })).toMatchObject({
    jobs: [{ state: failed, error: expect.stringContaining('it ends within its header') as string }],
  });
});

/** A watcher that reads nothing from its second event on, until it is let go on. */
async function sleeper(method: string): Promise<{ seen: Answer[]; wake: () => void }> {
  const stream = client.stream(method);
  const seen: Answer[] = [];
  stream.on('data', (answer: Answer) => seen.push(answer));
  // Whoever ends it says so.
  stream.on('error', () => undefined);
  await expect.poll(() => seen.length, { timeout: 30_000 }).toBe(2);
  stream.pause();
  return { seen, wake: () => void stream.resume() };
}

it('a watcher that was too slow is told what went meanwhile, and how imports ended', async () => {
  const { ask } = client;
  for (const id of ['mine', 'other']) {
    await ask('CreateVolume', { name: id, sizeBytes: MiB, id });
    await ask('CreateSnapshot', { volumeName: id, snapshotName: 'first' });
  }
  const promoted = { volumeName: 'mine', snapshotName: 'first', templateName: 'base' };
  const base = await ask('PromoteSnapshotToTemplate', promoted);
  let goOn = (): void => undefined;
  house.fake.before = (argv) =>
    argv.join(' ').startsWith('zfs create -s') ? new Promise((resolve) => (goOn = resolve)) : undefined;
  const source = join(house.folder, 'images', 'disk.raw');
  await writeFile(source, Buffer.alloc(MiB, 'zfsdev'));
  const { id } = await ask('ImportTemplate', { name: 'disk', source });
  const [volumes, templates] = [await sleeper('WatchVolumes'), await sleeper('WatchTemplates')];
  const { volumes: all, templates: made } = await inventory(house.keeper);
  for (let at = 0; at < 5000; at += 1) {
    for (const volume of all) house.keeper.hub.tell({ kind: 'volume', volume });
    for (const template of made) house.keeper.hub.tell({ kind: 'template', template });
    await turn();
  }
  await ask('DeleteVolume', { name: 'other' });
  await ask('DeleteTemplate', { name: 'base' });
  goOn();
  expect(await house.ended(id as string)).toMatchObject({ state: 'completed' });
  for (const { wake } of [volumes, templates]) wake();
  const lastOf = ({ seen }: typeof volumes, key: string, wanted: unknown): Answer | undefined =>
    seen.findLast((each) => each[key] === wanted);
  await expect.poll(() => lastOf(volumes, 'volumeId', 'other')?.['volume'], { timeout: 30_000 }).toBeFalsy();
  expect(lastOf(volumes, 'volumeId', 'mine')?.['volume']).toMatchObject({ name: 'mine' });
  await expect
    .poll(() => lastOf(templates, 'templateId', base['id'])?.['template'], { timeout: 30_000 })
    .toBeFalsy();
  const ended = { importJob: { state: 'IMPORT_JOB_STATE_COMPLETED' } };
  await expect.poll(() => lastOf(templates, 'templateId', id), { timeout: 30_000 }).toMatchObject(ended);
});

it('a list of imports asks ZFS once, however many there are', async () => {
  await writeFile(join(house.folder, 'images', 'disk.raw'), Buffer.alloc(MiB, 'zfsdev'));
  for (const name of ['one', 'two', 'three']) {
    const wanted = { name, target: 'template', sha256: '', id: name } as const;
    await house.imports.start(wanted, join(house.folder, 'images', 'disk.raw'));
    await house.ended(name);
  }
  house.fake.calls.length = 0;
  const { jobs } = await client.ask('ListImportJobs', { includeCompleted: true });
  expect(jobs).toMatchObject(['one', 'two', 'three'].map((id) => ({ id, template: { id } })));
  expect(house.fake.calls).toHaveLength(1);
  house.fake.state = undefined;
  expect(await client.ask('ListImportJobs')).toMatchObject({ jobs: [] });
});
