import { writeFileAtomically } from '../host/files.ts';
import { lineOf, readHistory, type Sample } from './history.ts';

const minute = 60_000;
const hour = 60 * minute;
const day = 24 * hour;

/** How far apart samples need to be kept, by their age: the last two hours whole, months by the quarter of a day. */
const grain: readonly { readonly younger: number; readonly apart: number }[] = [
  { younger: 2 * hour, apart: 0 },
  { younger: day, apart: minute },
  { younger: 30 * day, apart: 15 * minute },
  { younger: Infinity, apart: 6 * hour },
];

/**
 * Thins the history out: written beside, then renamed. The caller holds its lock. Afterwards it takes at most half of `bound`
 * bytes, so that this isn't done again at every look. @throws Failure `files`
 */
export async function trimHistory(path: string, bound: number, now: number): Promise<void> {
  const lines = thinned(await readHistory(path), now).map((sample) => `${lineOf(sample)}\n`);
  let from = lines.length;
  for (let room = bound / 2; from > 0; from -= 1) {
    room -= Buffer.byteLength(lines[from - 1] ?? '');
    if (room < 0) break;
  }
  await writeFileAtomically(path, lines.slice(from).join(''));
}

/** Of samples that are old and lie close together the last one, for each set of machines that was looked at. */
export function thinned(samples: readonly Sample[], now: number): Sample[] {
  const kept = new Map<string, Sample>();
  for (const [index, sample] of samples.entries()) {
    const { apart } = grain.find(({ younger }) => now - sample.at < younger) ?? { apart: 6 * hour };
    const names = sample.scope === 'some' ? sample.machines.map(({ name }) => name) : [];
    const slot = apart === 0 ? `#${index}` : `${apart}:${Math.floor(sample.at / apart)}`;
    kept.set([slot, sample.scope, ...names].join(' '), sample);
  }
  return [...kept.values()].sort((a, b) => a.at - b.at);
}
