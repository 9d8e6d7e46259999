import { setImmediate } from 'node:timers/promises';
import { deleteVolume } from './deletion.ts';
import { ZvolError } from './errors.ts';
import type { Exports } from './export.ts';
import type { Change } from './hub.ts';
import type { Imports } from './imports.ts';
import type { ImportJob } from './jobs.ts';
import { inventory, volumeOf, type Keeper } from './keeper.ts';
import type { Inventory } from './model.ts';
import { createPool, readPool } from './pool.ts';
import type { ImportRequest } from './request.ts';
import {
  flag,
  number,
  optional,
  receiving,
  streaming,
  text,
  unary,
  type Handlers,
  type Message,
  type Rpc,
} from './rpc.ts';
import {
  createSnapshot,
  deleteSnapshot,
  holdSnapshot,
  listSnapshots,
  releaseSnapshot,
  rollback,
} from './snapshots.ts';
import { within } from './stall.ts';
import { cloneTemplate, createTemplate, deleteTemplate } from './templates.ts';
import { createVolume, renameVolume, resizeVolume } from './volumes.ts';
import {
  importMessage,
  poolMessage,
  snapshotMessage,
  templateMessage,
  volumeMessage,
  watchMessage,
  type Made,
} from './wire.ts';

/** All that the services stand on. */
export interface Daemon extends Rpc {
  readonly keeper: Keeper;
  readonly imports: Imports;
  readonly exports: Exports;
  readonly version: string;
  readonly openzfs: string;
}

/** zfsdev.zvol.v1.ZvolService. */
export function zvolService(daemon: Daemon): Handlers {
  return {
    ...poolHandlers(daemon),
    ...volumeHandlers(daemon),
    ...snapshotHandlers(daemon),
    ...templateHandlers(daemon),
    ...importHandlers(daemon),
  };
}

function poolHandlers(daemon: Daemon): Handlers {
  const { keeper, version, openzfs } = daemon;
  return {
    GetVersion: unary(daemon, () => Promise.resolve({ version, openzfs })),
    GetPool: unary(daemon, async () => ({ pool: poolMessage(await readPool(keeper)) })),
    CreatePool: unary(daemon, async (request) => {
      const properties = request['properties'] as Readonly<Record<string, string>>;
      return { pool: poolMessage(await createPool(keeper, request['vdevs'] as string[], properties)) };
    }),
    Watch: streaming(daemon, async function* (_, signal) {
      for await (const told of keeper.hub.watch((again) => surveyOf(daemon, again), signal))
        yield watchMessage(told);
    }),
  };
}

/** All that is there, as changes that a watcher is told; one that has missed some, also of the imports that have ended. */
export async function surveyOf(
  { keeper, imports }: Pick<Daemon, 'keeper' | 'imports'>,
  again: boolean,
): Promise<Change[]> {
  const { volumes, templates } = await inventory(keeper);
  return [
    ...volumes.map((volume): Change => ({ kind: 'volume', volume })),
    ...templates.map((template): Change => ({ kind: 'template', template })),
    ...imports.list(again).map((job): Change => ({ kind: 'import', job })),
  ];
}

function volumeHandlers(daemon: Daemon): Handlers {
  const { keeper } = daemon;
  return {
    CreateVolume: unary(daemon, async (request) => {
      const volume = await createVolume(keeper, {
        name: text(request, 'name'),
        size: number(request, 'sizeBytes'),
        blockSize: optional(request, 'volblocksize'),
        thick: flag(request, 'thick'),
        id: text(request, 'id'),
      });
      return { volume: volumeMessage(volume) };
    }),
    ListVolumes: unary(daemon, async () => ({
      volumes: (await inventory(keeper)).volumes.map(volumeMessage),
    })),
    GetVolume: unary(daemon, async (request) => ({
      volume: volumeMessage(await volumeOf(keeper, text(request, 'volume'))),
    })),
    ResizeVolume: unary(daemon, async (request) => ({
      volume: volumeMessage(
        await resizeVolume(keeper, text(request, 'volume'), number(request, 'sizeBytes')),
      ),
    })),
    RenameVolume: unary(daemon, async (request) => ({
      volume: volumeMessage(await renameVolume(keeper, text(request, 'volume'), text(request, 'newName'))),
    })),
    DeleteVolume: unary(daemon, async (request) => {
      await deleteVolume(keeper, text(request, 'volume'));
      return {};
    }),
    // Who does not read it would keep a clone in the pool, and the volume from being deleted.
    Export: streaming(
      daemon,
      (request, signal) => exporting(daemon, request, signal),
      daemon.imports.stallAfter,
    ),
  };
}

async function* exporting(
  { exports }: Daemon,
  request: Message,
  signal: AbortSignal,
): AsyncGenerator<object> {
  const format = text(request, 'format') === 'EXPORT_FORMAT_QCOW2' ? 'qcow2' : 'raw';
  const what = { volume: text(request, 'volume'), snapshot: text(request, 'snapshot'), format } as const;
  const { total, parts, sha256, close } = await exports.open(what, signal);
  try {
    yield { totalBytes: total };
    for await (const part of parts) yield part;
    yield { totalBytes: total, sha256: sha256() };
  } finally {
    await close();
  }
}

function snapshotHandlers(daemon: Daemon): Handlers {
  const { keeper } = daemon;
  const words = (request: Message): [string, string] => [text(request, 'volume'), text(request, 'snapshot')];
  return {
    CreateSnapshot: unary(daemon, async (request) => {
      const { volume, name, id } = {
        volume: text(request, 'volume'),
        name: text(request, 'name'),
        id: text(request, 'id'),
      };
      return { snapshot: snapshotMessage(await createSnapshot(keeper, volume, name, id)) };
    }),
    ListSnapshots: unary(daemon, async (request) => ({
      snapshots: (await listSnapshots(keeper, text(request, 'volume'))).map(snapshotMessage),
    })),
    DeleteSnapshot: unary(daemon, async (request) => ({
      deferred: await deleteSnapshot(keeper, ...words(request), flag(request, 'deferred')),
    })),
    HoldSnapshot: unary(daemon, async (request) => ({
      snapshot: snapshotMessage(await holdSnapshot(keeper, ...words(request), text(request, 'tag'))),
    })),
    ReleaseSnapshot: unary(daemon, async (request) => {
      const left = await releaseSnapshot(keeper, ...words(request), text(request, 'tag'));
      return left ? { snapshot: snapshotMessage(left) } : {};
    }),
    RollbackSnapshot: unary(daemon, async (request) => ({
      volume: volumeMessage(await rollback(keeper, ...words(request), flag(request, 'deleteNewer'))),
    })),
  };
}

function templateHandlers(daemon: Daemon): Handlers {
  const { keeper } = daemon;
  return {
    CreateTemplate: unary(daemon, async (request) => {
      const [name, volume] = [text(request, 'name'), text(request, 'volume')];
      const template = await createTemplate(keeper, {
        name,
        volume,
        snapshot: text(request, 'snapshot'),
        id: text(request, 'id'),
      });
      return { template: templateMessage(template) };
    }),
    ListTemplates: unary(daemon, async () => ({
      templates: (await inventory(keeper)).templates.map(templateMessage),
    })),
    DeleteTemplate: unary(daemon, async (request) => {
      await deleteTemplate(keeper, text(request, 'template'));
      return {};
    }),
    CloneTemplate: unary(daemon, async (request) => {
      const [template, name] = [text(request, 'template'), text(request, 'name')];
      const volume = await cloneTemplate(keeper, {
        template,
        name,
        size: optional(request, 'sizeBytes'),
        id: text(request, 'id'),
      });
      return { volume: volumeMessage(volume) };
    }),
  };
}

function importHandlers(daemon: Daemon): Handlers {
  const { imports } = daemon;
  return {
    StartImport: unary(daemon, async (request, signal) => {
      const wanted = importRequest(request['description']);
      const job = await imports.start(wanted, text(request, 'source'), signal);
      return { import: importMessage(job) };
    }),
    UploadImport: receiving(daemon, async (messages, signal) => {
      const iterator = messages[Symbol.asyncIterator]();
      const patience = { after: imports.stallAfter, signal, idle: 'nothing came from the client' };
      const first = await within(iterator.next(), patience);
      if (first.done || !first.value['description'])
        throw new ZvolError('INVALID_ARGUMENT', 'the first message has to say what is sent');
      const job = await imports.upload(
        importRequest(first.value['description']),
        dataOf(iterator, signal),
        signal,
      );
      if (job.state !== 'completed')
        throw new ZvolError(job.code ?? 'INTERNAL', job.error || `the import ${job.id} was cancelled`);
      return { import: importMessage(job, await madeBy(daemon, job)) };
    }),
    GetImport: unary(daemon, async (request) => {
      const job = imports.get(text(request, 'id'));
      return { import: importMessage(job, await madeBy(daemon, job)) };
    }),
    ListImports: unary(daemon, (request) =>
      Promise.resolve({
        imports: imports.list(flag(request, 'includeCompleted')).map((job) => importMessage(job)),
      }),
    ),
    CancelImport: unary(daemon, async (request) => ({
      cancelled: await imports.cancel(text(request, 'id')),
    })),
  };
}

async function* dataOf(iterator: AsyncIterator<Message>, gone: AbortSignal): AsyncGenerator<Buffer> {
  for (let next = await iterator.next(); !next.done; next = await iterator.next()) {
    const { data } = next.value;
    if (!Buffer.isBuffer(data))
      throw new ZvolError('INVALID_ARGUMENT', 'after the first message only data is sent');
    yield data;
  }
  // A call that is cut off ends like a whole one at first: that it was cut off comes right behind.
  for (let turns = 0; turns < 3; turns += 1) await setImmediate();
  if (gone.aborted) throw new ZvolError('CANCELLED', 'its client went away');
}

function importRequest(message: unknown): ImportRequest {
  const description = (message ?? {}) as Message;
  return {
    name: text(description, 'name'),
    target: text(description, 'target') === 'IMPORT_TARGET_VOLUME' ? 'volume' : 'template',
    size: optional(description, 'sizeBytes'),
    blockSize: optional(description, 'volblocksize'),
    sha256: text(description, 'sha256'),
    id: text(description, 'id'),
  };
}

/** What a completed import made, if it is still there. */
async function madeBy({ keeper }: Pick<Daemon, 'keeper'>, job: ImportJob): Promise<Made> {
  return job.state === 'completed' ? madeIn(await inventory(keeper), job) : {};
}

/** The same, of what is there. */
export function madeIn(all: Inventory, job: ImportJob): Made {
  if (job.state !== 'completed') return {};
  const isIt = ({ id }: { readonly id: string }): boolean => id === job.id;
  return job.target === 'volume'
    ? { volume: all.volumes.find(isIt) }
    : { template: all.templates.find(isIt) };
}
