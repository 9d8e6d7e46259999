/** How a guest is watched that may say nothing for long: a compiler under emulation, or configure, is silent for half an hour. */
export interface WatchOptions {
  /** Milliseconds of silence before it is asked for a sign of life, and between two questions. */
  readonly patience: number;
  /** So many questions in a row without an answer, and it is lost. */
  readonly questions: number;
}

export interface GuestWatch {
  /** It has said something by itself. */
  readonly heard: () => void;
  /** Aborted once the guest is lost. */
  readonly lost: AbortSignal;
  readonly stop: () => void;
}

/**
 * Patient enough for a guest that compiles on all its processors and is emulated on a busy host: what it has built for hours
 * must not end by a mistake. Lost is a guest after half an hour.
 */
const usual: WatchOptions = { patience: 5 * 60_000, questions: 5 };

/**
 * Finds out that a guest is lost which nothing else tells of: one without a network any more, or that stands still because the
 * host's disk is full, keeps its connection and is only silent.
 * @param ask rejects if the guest gives no answer in a time of its own; its signal is aborted with the watch.
 */
export function watchGuest(ask: (signal: AbortSignal) => Promise<unknown>, options = usual): GuestWatch {
  const { patience, questions } = options;
  const [lost, stopped] = [new AbortController(), new AbortController()];
  let unanswered = 0;
  let asking = false;
  const question = async (): Promise<void> => {
    asking = true;
    const answered = await ask(stopped.signal).then(
      () => true,
      () => false,
    );
    asking = false;
    if (stopped.signal.aborted) return;
    unanswered = answered ? 0 : unanswered + 1;
    if (unanswered >= questions) lost.abort();
    else timer = setTimeout(() => void question(), patience);
  };
  let timer = setTimeout(() => void question(), patience);
  return {
    heard: () => {
      unanswered = 0;
      // A question that is being asked sets the next one itself.
      if (!asking && !stopped.signal.aborted && !lost.signal.aborted) timer.refresh();
    },
    lost: lost.signal,
    stop: () => {
      stopped.abort();
      clearTimeout(timer);
    },
  };
}
