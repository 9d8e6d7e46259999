import { Failure } from './errors.ts';

declare const brand: unique symbol;

/** A checked name for a new snapshot. */
export type SnapshotName = string & { readonly [brand]: 'SnapshotName' };

/** A qcow2 stores no more of it, and QEMU cuts what is longer without a word. */
const longest = 255;

/** What a set of disks is gone back to if taking it back to a snapshot is cut off. */
export const beforeLoad = 'zfsdev: before the load';

/**
 * Checks the name of a new snapshot: up to 255 bytes, anything that can be printed. QEMU numbers snapshots itself and
 * takes a name for a number before it takes it for a name, so no name may be such a number.
 * @throws Failure `usage` with a name that would do, where there is one.
 */
export function parseSnapshotName(text: string): SnapshotName {
  const refuse = (why: string, hint: string): Failure =>
    new Failure('usage', `${shown(text)} is not a name for a snapshot: ${why}`, { hint });
  const size = Buffer.byteLength(text);
  if (size === 0) throw refuse('it is empty', 'for instance "before-upgrade"');
  if (size > longest)
    throw refuse(`it has ${size} bytes`, `a qcow2 stores at most ${longest} bytes of a name`);
  if (/[\p{Cc}\p{Cs}\u2028\u2029]/u.test(text))
    throw refuse("it has characters that can't be printed", 'leave them out');
  if (text.trim() !== text)
    throw refuse('it begins or ends with a space', `for instance ${shown(text.trim())}`);
  if (/^[1-9]\d{0,6}$/.test(text))
    throw refuse('QEMU would take it for the number of one', `for instance "s${text}"`);
  if (text === beforeLoad)
    throw refuse('zfsdev takes one of this name itself', 'for instance "before the load"');
  return text as SnapshotName;
}

/** A tag for one that is taken in the place of another one of its name, as near to the name as it can be. */
export function freeTag(name: string, taken: ReadonlySet<string>): string {
  for (let number = 1; ; number += 1) {
    const ending = number === 1 ? '.other' : `.other${number}`;
    let start = name;
    while (Buffer.byteLength(start + ending) > longest) start = [...start].slice(0, -1).join('');
    if (!taken.has(start + ending)) return start + ending;
  }
}

function shown(text: string): string {
  return JSON.stringify(text.length > 60 ? `${text.slice(0, 57)}...` : text);
}
