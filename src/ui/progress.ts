import type { StepId, ZfsdevEvent } from '../core/events.ts';
import type { Paint } from './style.ts';

/** Shows events on standard error (or, as JSON lines, on standard output) while an operation runs. */
export interface Progress {
  emit(event: ZfsdevEvent): void;
  /** Ends all that is open; to be called before anything else is printed. */
  end(failed: boolean): Promise<void>;
}

type Write = (text: string) => void;

/** JSON lines: each event as it is, with the seconds since the start. */
export function jsonProgress(write: Write): Progress {
  const start = performance.now();
  return {
    emit: (event) => write(`${JSON.stringify({ ...event, seconds: seconds(start) })}\n`),
    end: () => Promise.resolve(),
  };
}

/** Steps that can take hours: where there are only lines, one tells now and then how far they are. */
const slowSteps: readonly StepId[] = ['source', 'config', 'make', 'modules', 'zfs', 'archive'];
/** Milliseconds. */
const tellEvery = 30_000;

/** Plain lines for logs and pipes: one when a step begins, one when it ends; within a step only where it is a slow one. */
export function plainProgress(write: Write, paint: Paint): Progress {
  const started = new Map<StepId, { title: string; start: number; told: number }>();
  return {
    emit: (event) => {
      switch (event.type) {
        case 'step-started':
          started.set(event.step, { title: event.title, start: performance.now(), told: performance.now() });
          return write(`- ${event.title}\n`);
        case 'step-progress': {
          const begun = started.get(event.step);
          if (!begun || !slowSteps.includes(event.step) || performance.now() - begun.told < tellEvery) return;
          started.set(event.step, { ...begun, told: performance.now() });
          return write(
            `  ${event.text} ${paint('faint', `(${duration(performance.now() - begun.start)})`)}\n`,
          );
        }
        case 'step-done': {
          const begun = started.get(event.step);
          started.delete(event.step);
          const took = begun ? paint('faint', ` (${duration(performance.now() - begun.start)})`) : '';
          return write(`  ${paint('good', 'done')}${event.text ? `: ${event.text}` : ''}${took}\n`);
        }
        case 'notice':
          return write(`${notice(event.level, event.text, paint)}\n`);
        case 'would':
          return write(`would ${event.text}\n`);
        default:
          return event satisfies never;
      }
    },
    end: (failed) => {
      if (failed) for (const { title } of started.values()) write(`  ${paint('bad', 'failed')}: ${title}\n`);
      started.clear();
      return Promise.resolve();
    },
  };
}

/** Steps that take so long that nobody should wait for them in silence. */
const longSteps: readonly StepId[] = [
  'image',
  'module',
  'packages',
  'pack',
  'zvold',
  'boot',
  'provision',
  'warm',
  'snapshot',
];

/** Nothing but warnings and what takes long: for commands whose own output is the point (`exec`, `run`). */
export function quietProgress(write: Write, paint: Paint): Progress {
  return {
    emit: (event) => {
      if (event.type === 'step-started' && longSteps.includes(event.step))
        write(`${paint('faint', `- ${event.title}`)}\n`);
      if (event.type === 'notice' && event.level === 'warning')
        write(`${notice(event.level, event.text, paint)}\n`);
    },
    end: () => Promise.resolve(),
  };
}

export function notice(level: 'info' | 'warning', text: string, paint: Paint): string {
  return level === 'warning' ? `${paint('weak', 'warning:')} ${text}` : text;
}

/** A span of time for people: `0.8 s`, `24 s`, `3 min 12 s`, `142 min 24 s`. */
export function duration(milliseconds: number): string {
  const exact = milliseconds / 1000;
  if (exact < 10) return `${exact.toFixed(1)} s`;
  const whole = Math.round(exact);
  return whole < 60 ? `${whole} s` : `${Math.floor(whole / 60)} min ${whole % 60} s`;
}

function seconds(start: number): number {
  return Math.round(performance.now() - start) / 1000;
}
