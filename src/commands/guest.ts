import { lstat } from 'node:fs/promises';
import { Failure, hasCode } from '../core/errors.ts';
import { step } from '../core/events.ts';
import { parseName, type InstanceName } from '../core/names.ts';
import { channelTo } from '../vm/lifecycle.ts';
import { requireInstance } from '../vm/store.ts';
import type { GlobalOptions, Session } from './session.ts';

/** `zfsdev shell`: a login shell in the guest. */
export async function shell(session: Session, name: string): Promise<number> {
  const channel = await channelTo(session.ctx, parseName(name));
  return channel.attach([], { tty: process.stdin.isTTY === true, signal: session.ctx.signal });
}

/** `zfsdev exec`: one command, its streams and its exit code passed through. */
export async function exec(
  session: Session,
  name: string,
  words: readonly string[],
  options: GlobalOptions & { readonly tty?: boolean },
): Promise<number> {
  const channel = await channelTo(session.ctx, parseName(name));
  // commander leaves the `--` before a command's own options in its place.
  return channel.attach(words[0] === '--' ? words.slice(1) : words, {
    tty: options.tty === true,
    signal: session.ctx.signal,
  });
}

type Place = { readonly path: string; readonly instance?: InstanceName };

/** `NAME:PATH` is in a guest; a path with a slash before its first colon is the host's. */
function parsePlace(text: string): Place {
  const colon = text.indexOf(':');
  if (colon < 1 || text.slice(0, colon).includes('/')) return { path: text };
  return { instance: parseName(text.slice(0, colon)), path: text.slice(colon + 1) || '.' };
}

/** `zfsdev copy`: files and folders, either way. */
export async function copy(
  session: Session,
  sources: readonly string[],
  destinationText: string,
): Promise<void> {
  const { ctx } = session;
  const from = sources.map(parsePlace);
  const to = parsePlace(destinationText);
  const guests = new Set([...from, to].map((place) => place.instance).filter((name) => name !== undefined));
  const inwards = to.instance !== undefined;
  if (guests.size !== 1 || from.some((place) => (place.instance === undefined) !== inwards)) {
    throw new Failure('usage', 'copy goes from this host into one guest, or from one guest to this host', {
      hint: "write the guest's side as NAME:PATH, for instance: zfsdev copy ./file zfs-test:/root/",
    });
  }
  const [name] = guests;
  if (name === undefined) return;
  await requireInstance(ctx, name);
  const paths = from.map(({ path }) => path);
  if (inwards) await Promise.all(paths.map(mustExist));
  if (ctx.dryRun) {
    for (const source of sources) ctx.emit({ type: 'would', text: `copy ${source} to ${destinationText}` });
    return;
  }
  const channel = await channelTo(ctx, name);
  await step(ctx.emit, 'copy', `Copying ${inwards ? 'into' : 'out of'} ${name}`, () =>
    inwards ? channel.copyIn(paths, to.path, ctx.signal) : channel.copyOut(paths, to.path, ctx.signal),
  );
  await session.answer({ copied: sources, to: destinationText }, () => '');
}

async function mustExist(path: string): Promise<void> {
  try {
    await lstat(path);
  } catch (error) {
    if (!hasCode(error, 'ENOENT', 'ENOTDIR')) throw error;
    throw new Failure('not-found', `there is no file ${path} on this host`, {
      hint: 'a path in the guest is written NAME:PATH',
    });
  }
}
