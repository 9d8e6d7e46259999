import { createReadStream } from 'node:fs';
import { open, rename, rm, stat } from 'node:fs/promises';
import { basename, resolve } from 'node:path';
import { formatBytes, parseBytes } from '../core/bytes.ts';
import { Failure, hasCode, messageOf } from '../core/errors.ts';
import { step } from '../core/events.ts';
import { parseName } from '../core/names.ts';
import { table, type Column } from '../ui/table.ts';
import { connectZvold, type ZvoldClient } from '../zvol/client.ts';
import type {
  Import,
  ImportDescription,
  Snapshot,
  Template,
  Timestamp,
  Volume,
  Watched,
} from '../zvol/messages.ts';
import type { GlobalOptions, Session } from './session.ts';

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
interface Call {
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
  const work = verbs[`${noun} ${verb}`];
  if (!work) throw new Error(`there is no ${noun} ${verb}`);
  const name = parseName(instance);
  const client = await connectZvold(session.ctx, name);
  try {
    await work({ session, client, instance: name, words, options });
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

const dateOf = ({ seconds }: Timestamp): string =>
  new Date(seconds * 1000).toISOString().slice(0, 19).replace('T', ' ');

const volumeColumns: readonly Column[] = [
  { title: 'NAME', flexible: true },
  { title: 'SIZE', align: 'right' },
  { title: 'USED', align: 'right' },
  { title: 'BLOCKS', align: 'right', optional: 2 },
  { title: 'RATIO', align: 'right', optional: 3 },
  { title: 'SNAPSHOTS', align: 'right', optional: 1 },
  { title: 'TEMPLATE', optional: 4 },
  { title: 'CREATED', optional: 5 },
];

function volumeRow(volume: Volume): string[] {
  return [
    volume.name,
    formatBytes(volume.sizeBytes),
    formatBytes(volume.usedBytes),
    formatBytes(volume.volblocksize),
    `${volume.compressionRatio.toFixed(2)}x`,
    String(volume.snapshots.length),
    volume.template || '-',
    dateOf(volume.createdAt),
  ];
}

function describeVolume(volume: Volume): string {
  const lines: [string, string][] = [
    ['name', volume.name],
    ['id', volume.id],
    ['device', volume.path],
    ['size', `${formatBytes(volume.sizeBytes)} in blocks of ${formatBytes(volume.volblocksize)}`],
    [
      'used',
      `${formatBytes(volume.usedBytes)}, ${formatBytes(volume.referencedBytes)} referenced, ${formatBytes(volume.reservedBytes)} reserved`,
    ],
    ['ratio', `${volume.compressionRatio.toFixed(2)} x`],
    ['template', volume.template || '-'],
    ['created', dateOf(volume.createdAt)],
    ['snapshots', volume.snapshots.map(({ name }) => name).join(', ') || '-'],
  ];
  return lines.map(([key, value]) => `${key.padEnd(10)} ${value}`).join('\n');
}

const snapshotColumns: readonly Column[] = [
  { title: 'NAME', flexible: true },
  { title: 'USED', align: 'right' },
  { title: 'REFERENCED', align: 'right', optional: 1 },
  { title: 'HOLDS', align: 'right', optional: 2 },
  { title: 'CLONES', optional: 3 },
  { title: 'CREATED', optional: 4 },
];

function snapshotRow(snapshot: Snapshot): string[] {
  const { name, usedBytes, referencedBytes, holds, clones, createdAt } = snapshot;
  return [
    name,
    formatBytes(usedBytes),
    formatBytes(referencedBytes),
    String(holds),
    clones.join(', ') || '-',
    dateOf(createdAt),
  ];
}

const templateColumns: readonly Column[] = [
  { title: 'NAME', flexible: true },
  { title: 'SIZE', align: 'right' },
  { title: 'REFERENCED', align: 'right', optional: 1 },
  { title: 'OF', optional: 2 },
  { title: 'CLONES' },
];

function templateRow({ name, sizeBytes, referencedBytes, sourceVolume, clones }: Template): string[] {
  return [
    name,
    formatBytes(sizeBytes),
    formatBytes(referencedBytes),
    sourceVolume || '-',
    clones.join(', ') || '-',
  ];
}

const importColumns: readonly Column[] = [
  { title: 'ID', optional: 2 },
  { title: 'NAME', flexible: true },
  { title: 'AS' },
  { title: 'STATE' },
  { title: 'DONE', align: 'right' },
  { title: 'SOURCE', optional: 1 },
];

function importRow(job: Import): string[] {
  const as = job.target === 'IMPORT_TARGET_VOLUME' ? 'volume' : 'template';
  return [job.id, job.name, as, stateOf(job), progressOf(job), job.source];
}

const stateOf = ({ state }: Import): string => state.replace('IMPORT_STATE_', '').toLowerCase();

function progressOf({ doneBytes, totalBytes }: Import): string {
  return totalBytes > 0 ? `${formatBytes(doneBytes)} of ${formatBytes(totalBytes)}` : formatBytes(doneBytes);
}

/** Files of this host are sent; all else the guest fetches itself. */
async function startImport({
  session,
  client,
  words: [name = '', source = ''],
  options,
}: Call): Promise<void> {
  const description: ImportDescription = {
    name,
    target: options.as === 'volume' ? 'IMPORT_TARGET_VOLUME' : 'IMPORT_TARGET_TEMPLATE',
    ...(options.size === undefined ? {} : { sizeBytes: parseBytes(options.size) }),
    volblocksize: parseBytes(options.volblocksize ?? '16KiB'),
    ...(options.sha256 === undefined ? {} : { sha256: options.sha256 }),
    ...(options.id === undefined ? {} : { id: options.id }),
  };
  const inGuest = /^guest:(\/.*)$/.exec(source)?.[1] ?? (/^https?:\/\//i.test(source) ? source : undefined);
  const ended =
    inGuest === undefined
      ? await send(session, client, description, resolve(source))
      : await fetchInGuest(session, client, description, inGuest, options.wait !== false);
  const made = ended.template
    ? `is a template of ${formatBytes(ended.template.sizeBytes)}`
    : ended.volume
      ? `is a volume: ${ended.volume.path}`
      : `is being imported: zfsdev import get ${ended.id}`;
  await session.answer({ import: ended }, () => `${session.paint('good', name)} ${made}\n`);
}

async function send(
  session: Session,
  client: ZvoldClient,
  description: ImportDescription,
  path: string,
): Promise<Import> {
  const { ctx } = session;
  let total: number;
  try {
    total = (await stat(path)).size;
  } catch (error) {
    throw new Failure('not-found', `${path} can't be read: ${messageOf(error)}`, {
      hint: 'name a file of this host, an http(s) address, or guest:/PATH for a file of the machine',
    });
  }
  return step(ctx.emit, 'import', `Sending ${basename(path)}`, async (progress) => {
    async function* counted(): AsyncGenerator<Buffer> {
      let sent = 0;
      for await (const chunk of createReadStream(path, {
        highWaterMark: 512 * 1024,
        signal: ctx.signal,
      }) as AsyncIterable<Buffer>) {
        yield chunk;
        sent += chunk.length;
        progress(`${formatBytes(sent)} of ${formatBytes(total)}`, sent / Math.max(1, total));
      }
    }
    return client.upload(description, counted());
  });
}

async function fetchInGuest(
  session: Session,
  client: ZvoldClient,
  description: ImportDescription,
  source: string,
  wait: boolean,
): Promise<Import> {
  const { ctx } = session;
  const begun = await client.startImport(description, source);
  if (!wait) return begun;
  return step(ctx.emit, 'import', `Importing ${source}`, async (progress) => {
    const stop = new AbortController();
    try {
      for await (const { import: job } of client.watch(AbortSignal.any([ctx.signal, stop.signal]))) {
        if (job?.id !== begun.id) {
          // What ended before the watch began is told by nobody.
          const now = await client.import(begun.id);
          if (now.completedAt) return settled(now);
          continue;
        }
        progress(
          `${stateOf(job)}: ${progressOf(job)}`,
          job.totalBytes > 0 ? job.doneBytes / job.totalBytes : undefined,
        );
        if (job.completedAt) return settled(await client.import(begun.id));
      }
    } finally {
      stop.abort();
      // Nobody waits for it any more.
      if (ctx.signal.aborted) await client.cancelImport(begun.id).catch(() => undefined);
    }
    throw new Failure('interrupted', `the import of ${description.name} was interrupted`);
  });
}

/** @throws Failure `guest` with what zvold says of it */
function settled(job: Import): Import {
  if (job.state === 'IMPORT_STATE_COMPLETED') return job;
  throw new Failure(
    'guest',
    `the import of ${job.name} ${stateOf(job)}: ${job.error || 'somebody ended it'}`,
    { data: { id: job.id } },
  );
}

async function exportVolume({
  session,
  client,
  words: [volume = '', target = ''],
  options,
}: Call): Promise<void> {
  const { ctx } = session;
  const path = resolve(target);
  const format = path.endsWith('.qcow2') ? 'qcow2' : 'raw';
  if (!options.overwrite && (await exists(path)))
    throw new Failure('already-exists', `${path} is there already`, { hint: '--overwrite replaces it' });
  const part = `${path}.part`;
  const result = await step(ctx.emit, 'export', `Exporting ${volume}`, async (progress) => {
    const file = await open(part, 'w', 0o600);
    try {
      let [total, sha256] = [0, ''];
      for await (const message of client.export(
        { volume, snapshot: options.snapshot ?? '', format },
        ctx.signal,
      )) {
        if (message.totalBytes) total = message.totalBytes;
        if (message.sha256) ({ sha256 } = message);
        for (let done = 0; done < message.data.length;)
          done += (await file.write(message.data, done, message.data.length - done, message.offset + done))
            .bytesWritten;
        progress(
          `${formatBytes(message.offset)} of ${formatBytes(total)}`,
          message.offset / Math.max(1, total),
        );
      }
      if (sha256 === '') throw new Failure('guest', `the export of ${volume} was cut off`);
      await file.truncate(total);
      await file.sync();
      return { total, sha256 };
    } catch (error) {
      await rm(part, { force: true });
      throw error;
    } finally {
      await file.close();
    }
  });
  await rename(part, path);
  await session.answer(
    { volume, path, sizeBytes: result.total, sha256: result.sha256 },
    () => `${session.paint('good', path)} (${formatBytes(result.total)}, ${format})\n`,
  );
}

async function exists(path: string): Promise<boolean> {
  try {
    await stat(path);
    return true;
  } catch (error) {
    if (hasCode(error, 'ENOENT')) return false;
    throw error;
  }
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
