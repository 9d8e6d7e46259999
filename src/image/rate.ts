import { formatBytes } from '../core/bytes.ts';

/** Milliseconds over which the rate is taken, and between two words about it. */
const window = 5_000;
const every = 500;

/** Puts the progress of something that moves bytes into words, often enough to be watched and no more. */
export class RateMeter {
  readonly #tell: (text: string, fraction?: number) => void;
  readonly #now: () => number;
  readonly #samples: { readonly at: number; readonly done: number }[] = [];
  #told = -Infinity;

  constructor(tell: (text: string, fraction?: number) => void, now: () => number = () => performance.now()) {
    this.#tell = tell;
    this.#now = now;
  }

  /** @param done bytes so far @param total of how many, where that is known */
  moved(done: number, total: number | undefined): void {
    const at = this.#now();
    // A download that begins anew.
    if (done < (this.#samples.at(-1)?.done ?? 0)) this.#samples.length = 0;
    this.#samples.push({ at, done });
    while ((this.#samples[0]?.at ?? at) < at - window) this.#samples.shift();
    if (at - this.#told < every && done !== total) return;
    this.#told = at;
    const first = this.#samples[0] ?? { at, done };
    const rate = at > first.at ? ((done - first.done) / (at - first.at)) * 1000 : 0;
    const parts = [
      total === undefined ? formatBytes(done) : `${formatBytes(done)} of ${formatBytes(total)}`,
      ...(rate > 0 ? [`${formatBytes(rate)}/s`] : []),
      ...(rate > 0 && total !== undefined && total > done ? [`${timeLeft((total - done) / rate)} left`] : []),
    ];
    this.#tell(parts.join(', '), total ? done / total : undefined);
  }
}

function timeLeft(seconds: number): string {
  return seconds < 90 ? `${Math.ceil(seconds)} s` : `${Math.ceil(seconds / 60)} min`;
}
