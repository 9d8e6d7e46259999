import { formatBytes } from '../core/bytes.ts';
import { Failure } from '../core/errors.ts';
import type { InstanceName } from '../core/names.ts';
import { compactDisk, type Reclaimed } from '../storage/compact.ts';
import type { CleanableKind } from '../storage/guest-usage.ts';
import { cleanGuest, trimGuest } from '../storage/reclaim.ts';
import { eachInstance } from './each-instance.ts';
import type { GlobalOptions, Session } from './session.ts';

export interface ReclaimOptions extends GlobalOptions {
  readonly keep?: readonly string[];
  readonly dropSnapshots?: boolean;
  readonly overcommit?: boolean;
}

/** `zfsdev trim`: what a running guest no longer uses goes back to the host. */
export function trim(session: Session, names: readonly string[]): Promise<void> {
  return each(session, names, 'trim', (name) => trimGuest(session.ctx, name));
}

/** `zfsdev clean`: removes what a guest can do without, and trims. */
export function clean(session: Session, names: readonly string[], options: ReclaimOptions): Promise<void> {
  const keep = (options.keep ?? []).map(kindOf);
  return each(session, names, 'clean', (name) => cleanGuest(session.ctx, name, keep));
}

/** `zfsdev compact`: writes the disk of a stopped machine anew. */
export function compact(session: Session, names: readonly string[], options: ReclaimOptions): Promise<void> {
  const how = { dropSnapshots: options.dropSnapshots === true, overcommit: options.overcommit === true };
  return each(session, names, 'compact', (name) => compactDisk(session.ctx, name, how));
}

function kindOf(text: string): CleanableKind {
  if (text === 'packages' || text === 'source' || text === 'logs') return text;
  throw new Failure('usage', `--keep "${text}" is none of the things that clean removes`, {
    hint: 'they are packages, source and logs',
  });
}

async function each(
  session: Session,
  texts: readonly string[],
  verb: string,
  work: (name: InstanceName) => Promise<Reclaimed>,
): Promise<void> {
  const done = await eachInstance(session, texts, verb, work);
  if (!done) return;
  await session.answer({ reclaimed: done.map(document) }, () =>
    done.map((one) => line(session, one)).join(''),
  );
}

function document({ name, before, after }: Reclaimed): object {
  return { name, beforeBytes: before, afterBytes: after, freedBytes: before - after };
}

/** A disk may also grow by a little, when there was nothing to free: its tables are written. */
function line({ paint }: Session, { name, before, after }: Reclaimed): string {
  const freed =
    before >= after ? `${formatBytes(before - after)} freed` : `${formatBytes(after - before)} more`;
  return `${paint('good', name)} took ${formatBytes(before)}, takes ${formatBytes(after)}: ${freed}\n`;
}
