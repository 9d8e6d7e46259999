import { deleteVolume } from './deletion.ts';
import type { Told } from './hub.ts';
import type { ImportJob } from './jobs.ts';
import { inventory, volumeOf } from './keeper.ts';
import type { Snapshot, Template, Volume } from './model.ts';
import { readPool } from './pool.ts';
import { flag, number, optional, streaming, text, unary, type Handlers, type Message } from './rpc.ts';
import { madeIn, surveyOf, type Daemon } from './service.ts';
import { createSnapshot, deleteSnapshot, listSnapshots, rollback } from './snapshots.ts';
import { cloneTemplate, createTemplate, deleteTemplate } from './templates.ts';
import { createVolume, resizeVolume } from './volumes.ts';
import { ZvolError } from './errors.ts';

/** mvirt.zfs.ZfsService, on the same operations: another form of the same words. */
export function mvirtService(daemon: Daemon): Handlers {
  return {
    ...poolAndVolumes(daemon),
    ...snapshots(daemon),
    ...templates(daemon),
    ...jobs(daemon),
    ...watches(daemon),
  };
}

function poolAndVolumes(daemon: Daemon): Handlers {
  const { keeper, version } = daemon;
  return {
    GetVersion: unary(daemon, () => Promise.resolve({ version })),
    GetPoolStats: unary(daemon, async () => {
      const { name, size, free, allocated, provisioned, compressionRatio } = await readPool(keeper);
      return {
        name,
        totalBytes: size,
        availableBytes: free,
        usedBytes: allocated,
        provisionedBytes: provisioned,
        compressionRatio,
      };
    }),
    CreateVolume: unary(daemon, async (request) =>
      volumeMessage(
        await createVolume(keeper, {
          name: text(request, 'name'),
          size: number(request, 'sizeBytes'),
          blockSize: optional(request, 'volblocksize'),
          thick: false,
          id: text(request, 'id'),
        }),
      ),
    ),
    ListVolumes: unary(daemon, async () => ({
      volumes: (await inventory(keeper)).volumes.map(volumeMessage),
    })),
    GetVolume: unary(daemon, async (request) => volumeMessage(await volumeOf(keeper, text(request, 'name')))),
    DeleteVolume: unary(daemon, async (request) => {
      await deleteVolume(keeper, text(request, 'name'));
      return { deleted: true };
    }),
    ResizeVolume: unary(daemon, async (request) =>
      volumeMessage(await resizeVolume(keeper, text(request, 'name'), number(request, 'newSizeBytes'))),
    ),
  };
}

function snapshots(daemon: Daemon): Handlers {
  const { keeper } = daemon;
  const words = (request: Message): [string, string] => [
    text(request, 'volumeName'),
    text(request, 'snapshotName'),
  ];
  return {
    CreateSnapshot: unary(daemon, async (request) =>
      snapshotMessage(await createSnapshot(keeper, ...words(request), '')),
    ),
    ListSnapshots: unary(daemon, async (request) => ({
      snapshots: (await listSnapshots(keeper, text(request, 'volumeName'))).map(snapshotMessage),
    })),
    DeleteSnapshot: unary(daemon, async (request) => {
      await deleteSnapshot(keeper, ...words(request), false);
      return { deleted: true };
    }),
    // The contract has no word for newer snapshots that may go, so they are a reason to refuse.
    RollbackSnapshot: unary(daemon, async (request) =>
      volumeMessage(await rollback(keeper, ...words(request), false)),
    ),
  };
}

function templates(daemon: Daemon): Handlers {
  const { keeper } = daemon;
  return {
    ListTemplates: unary(daemon, async () => ({
      templates: (await inventory(keeper)).templates.map(templateMessage),
    })),
    DeleteTemplate: unary(daemon, async (request) => {
      await deleteTemplate(keeper, text(request, 'name'));
      return { deleted: true };
    }),
    CloneFromTemplate: unary(daemon, async (request) => {
      const [template, name] = [text(request, 'templateName'), text(request, 'newVolumeName')];
      return volumeMessage(
        await cloneTemplate(keeper, {
          template,
          name,
          size: optional(request, 'sizeBytes'),
          id: text(request, 'id'),
        }),
      );
    }),
    PromoteSnapshotToTemplate: unary(daemon, async (request) => {
      const [volume, snapshot] = [text(request, 'volumeName'), text(request, 'snapshotName')];
      return templateMessage(
        await createTemplate(keeper, { name: text(request, 'templateName'), volume, snapshot, id: '' }),
      );
    }),
  };
}

function jobs(daemon: Daemon): Handlers {
  const { imports, keeper } = daemon;
  /** By one question to ZFS, if there is anything to ask at all. */
  const messages = async (all: readonly ImportJob[]): Promise<object[]> => {
    const there = all.some(({ state }) => state === 'completed') ? await inventory(keeper) : undefined;
    return all.map((job) => jobMessage(job, there && madeIn(there, job).template));
  };
  const message = async (job: ImportJob): Promise<object> => (await messages([job]))[0] ?? {};
  return {
    ImportTemplate: unary(daemon, async (request, signal) => {
      const wanted = {
        name: text(request, 'name'),
        target: 'template',
        size: optional(request, 'sizeBytes'),
        sha256: '',
        id: '',
      } as const;
      return message(await imports.start(wanted, text(request, 'source'), signal));
    }),
    GetImportJob: unary(daemon, (request) => message(templateJob(daemon, text(request, 'id')))),
    ListImportJobs: unary(daemon, async (request) => {
      const all = imports
        .list(flag(request, 'includeCompleted'))
        .filter(({ target }) => target === 'template');
      return { jobs: await messages(all) };
    }),
    CancelImportJob: unary(daemon, async (request) => ({
      cancelled: await imports.cancel(templateJob(daemon, text(request, 'id')).id),
    })),
  };
}

/** The contract knows imports of templates only. @throws ZvolError `NOT_FOUND` */
function templateJob({ imports }: Daemon, id: string): ImportJob {
  const job = imports.get(id);
  if (job.target === 'template') return job;
  throw new ZvolError('NOT_FOUND', `there is no import of a template "${id}"`);
}

function watches(daemon: Daemon): Handlers {
  const { keeper } = daemon;
  const told = (signal: AbortSignal): AsyncIterable<Told> =>
    withEnds(keeper.hub.watch((again) => surveyOf(daemon, again), signal));
  return {
    WatchVolumes: streaming(daemon, async function* (_, signal) {
      for await (const each of told(signal)) {
        const timestamp = Math.floor(each.time / 1000);
        if (each.kind === 'volume')
          yield { volumeId: each.volume.id, timestamp, volume: volumeMessage(each.volume) };
        else if (each.kind === 'volume-deleted') yield { volumeId: each.id, timestamp };
      }
    }),
    WatchTemplates: streaming(daemon, async function* (_, signal) {
      for await (const each of told(signal)) {
        const timestamp = Math.floor(each.time / 1000);
        if (each.kind === 'template')
          yield { templateId: each.template.id, timestamp, template: templateMessage(each.template) };
        else if (each.kind === 'template-deleted') yield { templateId: each.id, timestamp };
        else if (each.kind === 'import' && each.job.target === 'template')
          yield { templateId: each.job.id, timestamp, importJob: jobMessage(each.job, undefined) };
      }
    }),
  };
}

/**
 * The same, for a contract that has no word for beginning anew: what was told of before, and is not there any more when a watcher that
 * was too slow is told all of it again, is gone.
 */
async function* withEnds(told: AsyncIterable<Told>): AsyncGenerator<Told> {
  const known = { volume: new Set<string>(), template: new Set<string>() };
  let missing: typeof known | undefined;
  for await (const each of told) {
    const { kind, time } = each;
    if (kind === 'resync') missing = { volume: new Set(known.volume), template: new Set(known.template) };
    else if (kind === 'synced') {
      for (const id of missing?.volume ?? [])
        if (known.volume.delete(id)) yield { kind: 'volume-deleted', id, time };
      for (const id of missing?.template ?? [])
        if (known.template.delete(id)) yield { kind: 'template-deleted', id, time };
      missing = undefined;
    } else if (kind === 'volume') {
      known.volume.add(each.volume.id);
      missing?.volume.delete(each.volume.id);
    } else if (kind === 'template') {
      known.template.add(each.template.id);
      missing?.template.delete(each.template.id);
    } else if (kind === 'volume-deleted') known.volume.delete(each.id);
    else if (kind === 'template-deleted') known.template.delete(each.id);
    yield each;
  }
}

/** RFC 3339, in whole seconds as ZFS has them. */
const fromSeconds = (time: number): string => new Date(time * 1000).toISOString().replace('.000Z', 'Z');

function volumeMessage(volume: Volume): object {
  return {
    id: volume.id,
    name: volume.name,
    path: volume.path,
    volsizeBytes: volume.size,
    usedBytes: volume.used,
    volblocksize: volume.blockSize,
    compressionRatio: volume.compressionRatio,
    createdAt: fromSeconds(volume.created),
    snapshots: volume.snapshots.map(snapshotMessage),
  };
}

function snapshotMessage({ id, name, fullName, used, created }: Snapshot): object {
  return { id, name, fullName, usedBytes: used, createdAt: fromSeconds(created) };
}

function templateMessage({ id, name, snapshot, sourceVolume, size, clones }: Template): object {
  const createdAt = fromSeconds(snapshot.created);
  return {
    id,
    name,
    snapshotPath: snapshot.fullName,
    sourceVolume,
    sizeBytes: size,
    createdAt,
    cloneCount: clones.length,
  };
}

function jobMessage(job: ImportJob, template: Template | undefined): object {
  return {
    id: job.id,
    templateName: job.name,
    source: job.source,
    state: `IMPORT_JOB_STATE_${job.state.toUpperCase()}`,
    bytesWritten: job.done,
    totalBytes: job.total,
    ...(job.error === '' ? {} : { error: job.error }),
    ...(template ? { template: templateMessage(template) } : {}),
    createdAt: new Date(job.created).toISOString(),
    ...(job.completed === undefined ? {} : { completedAt: new Date(job.completed).toISOString() }),
  };
}
