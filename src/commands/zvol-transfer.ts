import { createReadStream } from 'node:fs';
import { open, rename, rm, stat } from 'node:fs/promises';
import { basename, resolve } from 'node:path';
import { formatBytes, parseBytes } from '../core/bytes.ts';
import { Failure, hasCode, messageOf } from '../core/errors.ts';
import { step } from '../core/events.ts';
import type { ZvoldClient } from '../zvol/api.ts';
import type { Import, ImportDescription } from '../zvol/messages.ts';
import type { Session } from './session.ts';
import { progressOf, stateOf } from './zvol-tables.ts';
import type { Call } from './zvol.ts';

/** Files of this host are sent; all else the guest fetches itself. */
export async function startImport({
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

/** Writes a volume beside the file it is to be, and names it when all of it is there. */
export async function exportVolume({
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
