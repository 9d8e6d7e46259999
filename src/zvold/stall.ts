import { ZvolError } from './errors.ts';

export interface Patience {
  /** Milliseconds after which somebody is given up. */
  readonly after: number;
  readonly signal: AbortSignal;
  /** What they did not do then. */
  readonly idle: string;
}

/** Waits for what somebody else has to do. @throws ZvolError `DEADLINE_EXCEEDED`, the signal's reason */
export function within<T>(work: Promise<T>, { after, signal, idle }: Patience): Promise<T> {
  return new Promise<T>((resolve, reject) => {
    const end = (settle: () => void): void => {
      clearTimeout(timer);
      signal.removeEventListener('abort', abort);
      settle();
    };
    const abort = (): void => end(() => reject(signal.reason as Error));
    const timer = setTimeout(
      () => end(() => reject(new ZvolError('DEADLINE_EXCEEDED', `${idle} for ${after / 1000} s`))),
      after,
    );
    work.then(
      (value) => end(() => resolve(value)),
      (error: unknown) => end(() => reject(error instanceof Error ? error : new Error(String(error)))),
    );
    if (signal.aborted) abort();
    else signal.addEventListener('abort', abort, { once: true });
  });
}

/** The same content, which ends with an error where nothing more comes of it, or the signal is aborted. */
export async function* unlessStalled<T>(source: AsyncIterable<T>, patience: Patience): AsyncGenerator<T> {
  const iterator = source[Symbol.asyncIterator]();
  try {
    for (;;) {
      const next = await within(iterator.next(), patience);
      if (next.done) return;
      yield next.value;
    }
  } finally {
    // Not waited for: what hangs would not answer this either.
    Promise.resolve(iterator.return?.()).catch(() => undefined);
  }
}
