import { once } from 'node:events';
import { resolve } from 'node:path';
import { formatBytes, parseBytes } from '../core/bytes.ts';
import { Failure } from '../core/errors.ts';
import { parseName, type InstanceName } from '../core/names.ts';
import { table } from '../ui/table.ts';
import type { ZvoldClient } from '../zvol/api.ts';
import { connectZvold } from '../zvol/connect.ts';
import type { Volume, Watched } from '../zvol/messages.ts';
import { proxyTo } from '../zvol/proxy.ts';
import type { GlobalOptions, Session } from './session.ts';
import { withNext } from './zvol-next.ts';
import {
  dateOf,
  describeVolume,
  importColumns,
  importRow,
  progressOf,
  snapshotColumns,
  snapshotRow,
  stateOf,
  templateColumns,
  templateRow,
  volumeColumns,
  volumeRow,
} from './zvol-tables.ts';
import { exportVolume, startImport } from './zvol-transfer.ts';

export interface ZvolOptions extends GlobalOptions {
  readonly size?: string;
  readonly volblocksize?: string;
  readonly thick?: boolean;
  readonly id?: string;
  readonly snapshot?: string;
  readonly overwrite?: boolean;
  readonly deferred?: boolean;
  readonly deleteNewer?: boolean;
  readonly as?: 'template' | 'volume';
  readonly sha256?: string;
  readonly wait?: boolean;
  readonly all?: boolean;
  readonly property?: readonly string[];
}

/** What a verb is handed. */
export interface Call {
  readonly session: Session;
  readonly client: ZvoldClient;
  readonly instance: string;
  /** The words after the instance. */
  readonly words: readonly string[];
  readonly options: ZvolOptions;
}

type Verb = (call: Call) => Promise<void>;

/** `zfsdev volume|vsnap|template|import|pool VERB INSTANCE ...`. */
export async function run(
  session: Session,
  noun: string,
  verb: string,
  instance: string,
  words: readonly string[],
  options: ZvolOptions,
): Promise<void> {
  const name = parseName(instance);
  if (`${noun} ${verb}` === 'volume serve') return serve(session, name, words[0] ?? '');
  const work = verbs[`${noun} ${verb}`];
  if (!work) throw new Error(`there is no ${noun} ${verb}`);
  const client = await connectZvold(session.ctx, name);
  try {
    await work({ session, client, instance: name, words, options });
  } catch (error) {
    throw withNext(error, { noun, verb, instance: name, words });
  } finally {
    await client.close();
  }
}

const verbs: Readonly<Record<string, Verb>> = {
  'volume create': async ({ session, client, words: [name = ''], options }) => {
    const volume = await client.createVolume({
      name,
      sizeBytes: parseBytes(options.size ?? ''),
      volblocksize: parseBytes(options.volblocksize ?? '16KiB'),
      thick: options.thick === true,
      id: options.id ?? '',
    });
    await tellVolume(session, volume, `is there: ${volume.path}, ${formatBytes(volume.sizeBytes)}`);
  },
  'volume list': async ({ session, client, instance }) => {
    const volumes = await client.volumes();
    await session.answer({ volumes }, () =>
      volumes.length === 0
        ? `There are no volumes yet. zfsdev volume create ${instance} NAME --size 1GiB makes one.\n`
        : `${table(volumeColumns, volumes.map(volumeRow), session.width)}\n`,
    );
  },
  'volume get': async ({ session, client, words: [name = ''] }) => {
    const volume = await client.volume(name);
    await session.answer({ volume }, () => `${describeVolume(volume)}\n`);
  },
  'volume resize': async ({ session, client, words: [name = '', size = ''], instance }) => {
    const volume = await client.resizeVolume(name, parseBytes(size));
    const then = `What is in it still has its old size: its user runs growpart on the disk and resize2fs (or xfs_growfs) on the file system, as zfsdev exec ${instance} -- resize2fs ${volume.path} does for one without partitions.`;
    await tellVolume(session, volume, `has ${formatBytes(volume.sizeBytes)} now. ${then}`);
  },
  'volume rename': async ({ session, client, words: [name = '', newName = ''] }) =>
    tellVolume(session, await client.renameVolume(name, newName), `is the new name of ${name}`),
  'volume delete': async ({ session, client, words: [name = ''] }) => {
    await client.deleteVolume(name);
    await session.answer({ deleted: name }, () => `${name} is deleted\n`);
  },
  'volume export': exportVolume,
  'volume watch': watch,
  'vsnap create': async ({ session, client, words: [volume = '', name = ''], options }) => {
    const snapshot = await client.createSnapshot(volume, name, options.id ?? '');
    await session.answer({ snapshot }, () => `${session.paint('good', snapshot.fullName)} is taken\n`);
  },
  'vsnap list': async ({ session, client, words: [volume = ''], instance }) => {
    const { snapshots } = await client.volume(volume);
    await session.answer({ snapshots }, () =>
      snapshots.length === 0
        ? `${volume} has no snapshots. zfsdev vsnap create ${instance} ${volume} NAME takes one.\n`
        : `${table(snapshotColumns, snapshots.map(snapshotRow), session.width)}\n`,
    );
  },
  'vsnap delete': async ({ session, client, words: [volume = '', name = ''], options }) => {
    const { deferred } = await client.deleteSnapshot(volume, name, options.deferred === true);
    await session.answer({ deleted: name, deferred }, () =>
      deferred ? `${name} goes when nothing stands on it any more\n` : `${name} is deleted\n`,
    );
  },
  'vsnap hold': async ({ session, client, words: [volume = '', name = '', tag = ''] }) => {
    const snapshot = await client.holdSnapshot(volume, name, tag);
    await session.answer({ snapshot }, () => `${snapshot.fullName} is held by ${tag}\n`);
  },
  'vsnap release': async ({ session, client, words: [volume = '', name = '', tag = ''] }) => {
    const snapshot = await client.releaseSnapshot(volume, name, tag);
    await session.answer({ snapshot: snapshot ?? null }, () =>
      snapshot ? `${tag} holds ${name} no more\n` : `${tag} held ${name} last: it is deleted\n`,
    );
  },
  'vsnap rollback': async ({ session, client, words: [volume = '', name = ''], options }) =>
    tellVolume(
      session,
      await client.rollback(volume, name, options.deleteNewer === true),
      `is back at ${name}`,
    ),
  'template create': async ({ session, client, words: [name = '', volume = '', snapshot = ''], options }) => {
    const template = await client.createTemplate({ name, volume, snapshot, id: options.id ?? '' });
    await session.answer(
      { template },
      () => `${session.paint('good', template.name)} is a template: ${template.snapshot}\n`,
    );
  },
  'template list': async ({ session, client }) => {
    const templates = await client.templates();
    await session.answer({ templates }, () =>
      templates.length === 0
        ? 'There are no templates yet. zfsdev import start and zfsdev template create make them.\n'
        : `${table(templateColumns, templates.map(templateRow), session.width)}\n`,
    );
  },
  'template delete': async ({ session, client, words: [name = ''] }) => {
    await client.deleteTemplate(name);
    await session.answer({ deleted: name }, () => `${name} is deleted\n`);
  },
  'template clone': async ({ session, client, words: [template = '', name = ''], options }) => {
    const size = options.size === undefined ? {} : { sizeBytes: parseBytes(options.size) };
    const volume = await client.cloneTemplate({ template, name, ...size, id: options.id ?? '' });
    await tellVolume(
      session,
      volume,
      `is there: ${volume.path}, ${formatBytes(volume.sizeBytes)} of ${template}`,
    );
  },
  'import start': startImport,
  'import list': async ({ session, client, options }) => {
    const imports = await client.imports(options.all === true);
    await session.answer({ imports }, () =>
      imports.length === 0
        ? `Nothing is being imported${options.all ? '' : '; --all shows what has ended'}.\n`
        : `${table(importColumns, imports.map(importRow), session.width)}\n`,
    );
  },
  'import get': async ({ session, client, words: [id = ''] }) => {
    const found = await client.import(id);
    await session.answer(
      { import: found },
      () =>
        `${table(importColumns, [importRow(found)], session.width)}\n${found.error && `${found.error}\n`}`,
    );
  },
  'import cancel': async ({ session, client, words: [id = ''] }) => {
    const { cancelled } = await client.cancelImport(id);
    await session.answer({ cancelled }, () =>
      cancelled ? `${id} is cancelled, and left nothing\n` : `${id} had ended already\n`,
    );
  },
  'pool status': async ({ session, client }) => {
    const pool = await client.pool();
    await session.answer({ pool }, () =>
      [
        `${session.paint(pool.health === 'ONLINE' ? 'good' : 'bad', pool.name)}  ${pool.health}`,
        `  size          ${formatBytes(pool.sizeBytes)}, ${formatBytes(pool.allocatedBytes)} taken, ${formatBytes(pool.freeBytes)} free`,
        `  provisioned   ${formatBytes(pool.provisionedBytes)} in volumes`,
        `  compression   ${pool.compressionRatio.toFixed(2)} x`,
        `  fragmentation ${pool.fragmentationPercent} %`,
        '',
      ].join('\n'),
    );
  },
  'pool create': async ({ session, client, words, options }) => {
    const pool = await client.createPool(words, Object.fromEntries((options.property ?? []).map(property)));
    await session.answer({ pool }, () => `${session.paint('good', pool.name)} is ${pool.health}\n`);
  },
};

function property(text: string): [string, string] {
  const [key = '', ...value] = text.split('=');
  if (value.length === 0) throw new Failure('usage', `--property ${text}: write KEY=VALUE`);
  return [key, value.join('=')];
}

function tellVolume(session: Session, volume: Volume, words: string): Promise<void> {
  return session.answer({ volume }, () => `${session.paint('good', volume.name)} ${words}\n`);
}

/** Prints every change, a line each. */
async function watch({ session, client }: Call): Promise<void> {
  for await (const told of client.watch(session.ctx.signal))
    session.write(session.json ? `${JSON.stringify(told)}\n` : `${dateOf(told.time)}  ${wordsFor(told)}\n`);
}

function wordsFor(told: Watched): string {
  switch (told.event) {
    case 'synced':
      return 'all of it is told; changes follow';
    case 'resync':
      return 'some changes were lost; all of it again';
    case 'volume':
      return `volume ${told.volume?.name ?? ''}: ${formatBytes(told.volume?.sizeBytes ?? 0)}, ${told.volume?.snapshots.length ?? 0} snapshots`;
    case 'volumeDeleted':
      return `volume ${told.volumeDeleted ?? ''} is gone`;
    case 'template':
      return `template ${told.template?.name ?? ''}: ${told.template?.clones.length ?? 0} clones`;
    case 'templateDeleted':
      return `template ${told.templateDeleted ?? ''} is gone`;
    case 'import':
      return told.import
        ? `import of ${told.import.name}: ${stateOf(told.import)}, ${progressOf(told.import)}`
        : '';
  }
}

/** Keeps a socket for other programs until somebody ends it. */
async function serve({ ctx, ...session }: Session, name: InstanceName, target: string): Promise<void> {
  const proxy = await proxyTo(ctx, name, resolve(target));
  try {
    await session.answer(
      { socket: proxy.path },
      () => `${proxy.path} leads to the volumes of ${name}, until Ctrl-C\n`,
    );
    if (!ctx.signal.aborted) await once(ctx.signal, 'abort');
  } finally {
    await proxy.close();
  }
}
