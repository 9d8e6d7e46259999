import { createReadStream, watch } from 'node:fs';
import { open } from 'node:fs/promises';
import { pipeline } from 'node:stream/promises';
import { Failure, hasCode } from '../core/errors.ts';
import { parseName } from '../core/names.ts';
import { consoleLog } from '../vm/machine-files.ts';
import { requireInstance } from '../vm/store.ts';
import type { GlobalOptions, Session } from './session.ts';

/** `zfsdev logs`: the machine's console, from its first line; with `--follow` until Ctrl-C. */
export async function logs(
  session: Session,
  nameText: string,
  options: GlobalOptions & { readonly follow?: boolean },
): Promise<void> {
  const name = parseName(nameText);
  const found = await requireInstance(session.ctx, name);
  const path = await consoleLog(session.ctx, found.instance ?? found);
  try {
    if (options.follow) await follow(path, session.ctx.signal);
    else await pipeline(createReadStream(path), process.stdout, { end: false });
  } catch (error) {
    if (hasCode(error, 'EPIPE')) return;
    if (!hasCode(error, 'ENOENT')) throw error;
    throw new Failure('not-found', `"${name}" has no console log yet`, { hint: `zfsdev start ${name}` });
  }
}

async function follow(path: string, signal: AbortSignal): Promise<void> {
  const file = await open(path, 'r');
  const watcher = watch(path);
  try {
    const buffer = Buffer.alloc(64 * 1024);
    let position = 0;
    const drain = async (): Promise<void> => {
      const { size } = await file.stat();
      if (size < position) position = 0;
      for (;;) {
        const { bytesRead } = await file.read(buffer, 0, buffer.length, position);
        if (bytesRead === 0) return;
        position += bytesRead;
        process.stdout.write(Buffer.from(buffer.subarray(0, bytesRead)));
      }
    };
    await drain();
    while (!signal.aborted) {
      await new Promise<void>((resolve) => {
        const done = (): void => {
          watcher.off('change', done);
          signal.removeEventListener('abort', done);
          resolve();
        };
        watcher.on('change', done);
        signal.addEventListener('abort', done);
      });
      await drain();
    }
  } finally {
    watcher.close();
    await file.close();
  }
}
