import { Listr, ListrLogger, ProcessOutput } from 'listr2';
import type { StepId } from '../core/events.ts';
import { duration, notice, type Progress } from './progress.ts';
import type { Paint } from './style.ts';

interface OpenStep {
  readonly start: number;
  readonly title: string;
  readonly finish: (text: string | undefined) => void;
  readonly fail: () => void;
  readonly show: (text: string) => void;
  readonly rendered: Promise<unknown>;
}

/** A live task list for terminals: one listr2 list a step, so that the steps need not be known beforehand. */
export function taskList(write: (text: string) => void, paint: Paint): Progress {
  const open = new Map<StepId, OpenStep>();
  let queue: Promise<unknown> = Promise.resolve();
  const afterwards = (text: string): void => {
    // Lines between two lists wait until the renderer has let go of the terminal.
    queue = queue.then(() => write(`${text}\n`));
  };
  return {
    emit: (event) => {
      switch (event.type) {
        case 'step-started': {
          const begun = openStep(event.title, paint, queue);
          open.set(event.step, begun);
          queue = begun.rendered;
          return;
        }
        case 'step-progress':
          return open.get(event.step)?.show(event.text);
        case 'step-done':
          open.get(event.step)?.finish(event.text);
          open.delete(event.step);
          return;
        case 'notice':
          return afterwards(notice(event.level, event.text, paint));
        case 'would':
          return afterwards(`would ${event.text}`);
        default:
          return event satisfies never;
      }
    },
    end: async (failed) => {
      for (const begun of open.values()) {
        if (failed) begun.fail();
        else begun.finish(undefined);
      }
      open.clear();
      await queue;
    },
  };
}

function openStep(title: string, paint: Paint, before: Promise<unknown>): OpenStep {
  const start = performance.now();
  let settle: { resolve: (text: string | undefined) => void; reject: (error: Error) => void } | undefined;
  const settled = new Promise<string | undefined>((resolve, reject) => (settle = { resolve, reject }));
  settled.catch(() => undefined);
  let latest = '';
  let update: ((text: string) => void) | undefined;
  const list = new Listr(
    [
      {
        title,
        task: async (_, task) => {
          update = (text) => (task.output = text);
          if (latest) update(latest);
          const text = await settled;
          task.title = `${title}${text ? `: ${text}` : ''} ${paint('faint', duration(performance.now() - start))}`;
        },
      },
    ],
    {
      exitOnError: false,
      registerSignalListeners: false,
      // Standard output belongs to the command's answer, so the list lives on standard error and only asks about that.
      forceTTY: true,
      rendererOptions: {
        logger: new ListrLogger({ processOutput: new ProcessOutput(process.stderr, process.stderr) }),
        showErrorMessage: false,
        collapseErrors: false,
      },
    },
  );
  return {
    start,
    title,
    finish: (text) => settle?.resolve(text),
    fail: () => settle?.reject(new Error(title)),
    show: (text) => {
      latest = text;
      update?.(text);
    },
    rendered: before.then(() => list.run()).catch(() => undefined),
  };
}
