import { Failure } from './errors.ts';

declare const brand: unique symbol;

/** A checked instance name: safe as a path component, a host name and a Lima name alike. */
export type InstanceName = string & { readonly [brand]: 'InstanceName' };

const pattern = /^[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?$/;

/**
 * Checks a name: 1 to 40 small letters, digits and inner hyphens.
 * @throws Failure `usage` with a name that would do, where one can be guessed.
 */
export function parseName(text: string): InstanceName {
  if (pattern.test(text)) return text as InstanceName;
  const guess = text
    .toLowerCase()
    .replace(/[^a-z0-9]+/g, '-')
    .slice(0, 40)
    .replace(/^-+|-+$/g, '');
  const shown = text.length > 60 ? `${text.slice(0, 57)}...` : text;
  throw new Failure('usage', `${JSON.stringify(shown)} is not a name for an instance`, {
    hint:
      'names have 1 to 40 small letters, digits and hyphens, and begin and end with a letter or digit' +
      (pattern.test(guess) ? `; for instance "${guess}"` : ''),
  });
}

/** The candidate nearest to what was typed, or undefined if none is near (for "did you mean"). */
export function nearest(typed: string, candidates: readonly string[]): string | undefined {
  let best: { name: string; distance: number } | undefined;
  for (const name of candidates) {
    const distance = name.startsWith(typed) && typed.length > 2 ? 1 : editDistance(typed, name);
    if (!best || distance < best.distance) best = { name, distance };
  }
  return best && best.distance <= Math.max(2, Math.floor(typed.length / 3)) ? best.name : undefined;
}

function editDistance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, i) => i);
  for (let i = 1; i <= a.length; i += 1) {
    const next = [i];
    for (let j = 1; j <= b.length; j += 1) {
      const substituted = (row[j - 1] ?? 0) + (a[i - 1] === b[j - 1] ? 0 : 1);
      next[j] = Math.min((row[j] ?? 0) + 1, (next[j - 1] ?? 0) + 1, substituted);
    }
    row = next;
  }
  return row[b.length] ?? 0;
}
