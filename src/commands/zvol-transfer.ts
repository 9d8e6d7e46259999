import { randomUUID } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { open, stat } from 'node:fs/promises';
import { basename, resolve } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { formatBytes, parseBytes } from '../core/bytes.ts';
import { Failure, messageOf } from '../core/errors.ts';
import { step } from '../core/events.ts';
import type { ZvoldClient } from '../zvol/api.ts';
import type { Import, ImportDescription } from '../zvol/messages.ts';
import { receive } from '../zvol/receive.ts';
import type { Session } from './session.ts';
import { progressOf, stateOf } from './zvol-tables.ts';
import type { Call } from './zvol.ts';

/** How often in a row a volume manager that has gone is asked again, and after how many milliseconds. */
const mostLosses = 10;
const lossPause = 1000;

/** Milliseconds for an import that nobody waits for any more: what it made has to go. */
const cancelDeadline = 60_000;

/** What a qcow2 begins with. */
const qcow2Magic = 0x514649fb;

/** Files of this host are sent; all else the guest fetches itself. */
export async function startImport({
  session,
  client,
  instance,
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
      : `${ended.completedAt ? 'was imported before' : 'is being imported'}: zfsdev import get ${instance} ${ended.id}`;
  await session.answer({ import: ended }, () => `${session.paint('good', name)} ${made}\n`);
}

async function send(
  session: Session,
  client: ZvoldClient,
  description: ImportDescription,
  path: string,
): Promise<Import> {
  const { ctx } = session;
  const { total, isRaw } = await lookAt(path);
  // The guest need not keep raw content anywhere if it knows how large the volume is to be.
  const whole = isRaw && total > 0 ? { sizeBytes: total, ...description } : description;
  return step(ctx.emit, 'import', `Sending ${basename(path)}`, async (progress) => {
    async function* counted(): AsyncGenerator<Buffer> {
      let sent = 0;
      const { signal } = ctx;
      try {
        for await (const chunk of createReadStream(path, {
          highWaterMark: 512 * 1024,
          signal,
        }) as AsyncIterable<Buffer>) {
          yield chunk;
          sent += chunk.length;
          progress(`${formatBytes(sent)} of ${formatBytes(total)}`, sent / Math.max(1, total));
        }
      } catch (error) {
        if (signal.aborted) throw new Failure('interrupted', `the import of ${path} was interrupted`);
        throw new Failure('files', `${path} can't be read: ${messageOf(error)}`, { cause: error });
      }
    }
    return client.upload(whole, counted());
  });
}

/** @throws Failure `not-found`, `usage` for what is no file */
async function lookAt(path: string): Promise<{ total: number; isRaw: boolean }> {
  try {
    const info = await stat(path);
    // A device or a pipe has no length that could be told.
    if (!info.isFile()) throw new Error('it is no file');
    const file = await open(path, 'r');
    try {
      const { buffer, bytesRead } = await file.read(Buffer.alloc(4), 0, 4, 0);
      return { total: info.size, isRaw: bytesRead < 4 || buffer.readUInt32BE(0) !== qcow2Magic };
    } finally {
      await file.close();
    }
  } catch (error) {
    throw new Failure('not-found', `${path} can't be read: ${messageOf(error)}`, {
      hint: 'name a file of this host, an http(s) address, or guest:/PATH for a file of the machine',
    });
  }
}

async function fetchInGuest(
  session: Session,
  client: ZvoldClient,
  description: ImportDescription,
  source: string,
  wait: boolean,
): Promise<Import> {
  const { ctx } = session;
  // Of this end's making where the user gave none: what an answer that was never heard of began can be ended all the same.
  const id = description.id || randomUUID();
  const begun = await client.startImport({ ...description, id }, source).catch(async (error: unknown) => {
    await giveUp(session, client, id);
    throw error;
  });
  if (!wait) return begun;
  return step(ctx.emit, 'import', `Importing ${source}`, async (progress) => {
    try {
      for (let losses = 0; !ctx.signal.aborted && losses <= mostLosses; losses += 1) {
        try {
          const ended = await watched(client, begun.id, ctx.signal, progress);
          if (ended) return settled(ended);
        } catch (error) {
          if (!isGone(error) || losses === mostLosses) throw error;
        }
        // One that has ended is started by whoever asks for it next, and goes on with what it fetches.
        await delay(lossPause, undefined, { signal: ctx.signal }).catch(() => undefined);
      }
    } finally {
      await giveUp(session, client, begun.id);
    }
    throw new Failure('interrupted', `the import of ${description.name} was interrupted`);
  });
}

/** Ends an import, if its user called it off: nobody waits for it any more. */
async function giveUp({ ctx }: Session, client: ZvoldClient, id: string): Promise<void> {
  if (!ctx.signal.aborted) return;
  // One that had not begun is unknown, and does not begin.
  await client.cancelImport(id, AbortSignal.timeout(cancelDeadline)).catch(() => undefined);
}

/** Follows an import to its end. @returns undefined if that was not told */
async function watched(
  client: ZvoldClient,
  id: string,
  signal: AbortSignal,
  progress: (text: string, fraction?: number) => void,
): Promise<Import | undefined> {
  const stop = new AbortController();
  try {
    for await (const { import: job } of client.watch(AbortSignal.any([signal, stop.signal]))) {
      if (job?.id !== id) {
        // What ended before the watch began is told by nobody.
        const now = await client.import(id);
        if (now.completedAt) return now;
        continue;
      }
      progress(
        `${stateOf(job)}: ${progressOf(job)}`,
        job.totalBytes > 0 ? job.doneBytes / job.totalBytes : undefined,
      );
      if (job.completedAt) return await client.import(id);
    }
    return undefined;
  } finally {
    stop.abort();
  }
}

/** True for the words of a volume manager that ended, or of a connection to one. */
function isGone(error: unknown): boolean {
  return error instanceof Failure && (error.data['lost'] === true || error.data['code'] === 'CANCELLED');
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

/** Writes a volume beside the file it is to be, and names it when all of it is there and was compared. */
export async function exportVolume({
  session,
  client,
  words: [volume = '', target = ''],
  options,
}: Call): Promise<void> {
  const { ctx } = session;
  const path = resolve(target);
  const format = path.endsWith('.qcow2') ? 'qcow2' : 'raw';
  const stop = new AbortController();
  const signal = AbortSignal.any([ctx.signal, stop.signal]);
  const { total, sha256 } = await step(ctx.emit, 'export', `Exporting ${volume}`, async (tell) => {
    const progress = (done: number, all: number): void =>
      tell(`${formatBytes(done)} of ${formatBytes(all)}`, done / Math.max(1, all));
    const wanted = { volume, snapshot: options.snapshot ?? '', format } as const;
    const overwrite = options.overwrite === true;
    try {
      return await receive(client.export(wanted, signal), {
        what: volume,
        path,
        overwrite,
        signal: ctx.signal,
        progress,
      });
    } finally {
      // Whatever went wrong here, the guest need not send the rest.
      stop.abort();
    }
  });
  await session.answer(
    { volume, path, sizeBytes: total, sha256 },
    () => `${session.paint('good', path)} (${formatBytes(total)}, ${format})\n`,
  );
}
