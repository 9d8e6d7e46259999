/** As `AbortSignal.any` of Node 20: aborts with the first of these, for that one's reason. */
export function firstOf(signals: readonly AbortSignal[]): AbortSignal {
  const either = new AbortController();
  const done = new AbortController();
  for (const signal of signals) {
    const abort = (): void => {
      // What lives longer must not keep hold of this one.
      done.abort();
      either.abort(signal.reason);
    };
    if (signal.aborted) {
      abort();
      break;
    }
    signal.addEventListener('abort', abort, { once: true, signal: done.signal });
  }
  return either.signal;
}

// In the machines of others it runs on the Node of their distribution, which may be 18.
if (!('any' in AbortSignal)) Object.defineProperty(AbortSignal, 'any', { value: firstOf });
