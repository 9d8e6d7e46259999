import { Failure } from '../core/errors.ts';
import { step } from '../core/events.ts';
import type { Context } from '../host/context.ts';
import type { Deadline } from '../host/deadline.ts';
import { duration } from '../ui/progress.ts';
import { phases, type Builder, type Phase } from './builder.ts';
import { explainLoss, explainPhase, headingOf } from './diagnose.ts';
import { appendLog } from './log.ts';
import { estimateMake, makeMeter, roughly } from './progress.ts';

/** Milliseconds between two words on how far a phase is: a make has hundreds of lines a second. */
const showEvery = 500;

/** Milliseconds of silence after which a phase is said to be at work still. */
const silence = 60_000;

const titles: Readonly<Record<Phase, string>> = {
  preflight: 'Looking at tools, disk and memory',
  source: "Fetching the kernel's source",
  config: 'Configuring the kernel',
  make: 'Compiling the kernel',
  modules: 'Installing the modules',
  zfs: 'Compiling OpenZFS',
  initrd: 'Making the initrd',
  archive: 'Packing the archive',
};

/** What the phases told: `release`, `archive`, `sha256`, `peak` (KiB) ... */
export type Facts = ReadonlyMap<string, string>;

export interface PipelineOptions {
  readonly log: string;
  readonly deadline: Deadline;
  /** Without OpenZFS its phase is only a tidying up. */
  readonly zfs: boolean;
  /** Told what `uname -r` will say, before anything is compiled; what it throws ends the build. */
  readonly onRelease?: (release: string) => void;
  /** Each line of the phases, for who wants to see them all. */
  readonly tell?: ((line: string) => void) | undefined;
}

/**
 * Runs all phases in a builder, one after the other; those that are done already only tell again what they told.
 * @throws Failure `process`, `no-space` with the end of the log and what to do next; `deadline`; `interrupted`.
 */
export async function runPhases(ctx: Context, builder: Builder, options: PipelineOptions): Promise<Facts> {
  const facts = new Map<string, string>();
  for (const phase of phases) {
    appendLog(options.log, headingOf(phase));
    const title = phase === 'zfs' && !options.zfs ? 'Tidying up' : titles[phase];
    await step(ctx.emit, phase, title, (progress) => runPhase(ctx, builder, phase, facts, options, progress));
    if (phase !== 'config') continue;
    options.onRelease?.(facts.get('release') ?? '');
    tellTime(ctx, builder, facts, options);
  }
  return facts;
}

/** Before the long part begins: how long it may be, and whether it will be let be that long. */
function tellTime(
  ctx: Context,
  { emulated }: Builder,
  facts: Facts,
  { deadline, zfs }: PipelineOptions,
): void {
  const fact = (name: string): number => Number(facts.get(name) ?? 0);
  const { objects, milliseconds } = estimateMake(fact('options'), fact('cost'), fact('jobs'), emulated);
  if (milliseconds === undefined) return;
  const later = zfs ? ', and OpenZFS afterwards may take as long again' : '';
  const text = `about ${objects} objects are to be compiled, which takes about ${roughly(milliseconds)} here${later}`;
  if (milliseconds * (zfs ? 2 : 1) < deadline.left())
    return ctx.emit({ type: 'notice', level: 'info', text });
  const longer = `${text}, longer than --timeout lets it: a build that is cut off goes on with --resume`;
  ctx.emit({ type: 'notice', level: 'warning', text: longer });
}

async function runPhase(
  ctx: Context,
  builder: Builder,
  phase: Phase,
  facts: Map<string, string>,
  { log, deadline, tell }: PipelineOptions,
  progress: (text: string, fraction?: number) => void,
): Promise<void> {
  const meter = phase === 'make' ? makeMeter(Number(facts.get('options') ?? 0)) : undefined;
  let told: string | undefined;
  const { show, heard, stop } = display(progress);
  const onLine = (line: string): void => {
    tell?.(line);
    heard();
    const fact = /^@ (\S+) (.*)$/.exec(line);
    if (fact?.[1]) {
      facts.set(fact[1], fact[2] ?? '');
      if (fact[1] === 'notice') ctx.emit({ type: 'notice', level: 'info', text: fact[2] ?? '' });
      return;
    }
    if (line.startsWith('! ')) told = line.slice(2);
    if (line.startsWith('> ')) return show(line.slice(2), undefined, true);
    const seen = meter?.take(line);
    if (seen) show(seen.text, seen.fraction);
    else if (phase === 'zfs' && /^(checking|configure:|  CC )/.test(line)) show(line.trim());
  };
  const place = { log, afterwards: builder.afterwards, anew: builder.anew };
  const exitCode = await builder
    .run(phase, { onLine, deadline: deadline.left(), signal: ctx.signal })
    .catch((error: unknown) => {
      if (!ctx.signal.aborted) throw explainLoss(phase, error, place);
      throw new Failure('interrupted', `the build was interrupted: ${titles[phase]}`, { cause: error });
    })
    .finally(stop);
  const peak = facts.get('peak');
  if (peak !== undefined) await builder.grown?.(Number(peak) * 1024);
  if (exitCode !== 0) throw explainPhase(phase, exitCode, told, place);
}

interface Display {
  /** Shows how far a phase is, unless it was told a moment ago and is not `due` all the same. */
  readonly show: (text: string, fraction?: number, due?: boolean) => void;
  /** A line came, whether it is worth showing or not. */
  readonly heard: () => void;
  readonly stop: () => void;
}

/** Shows how far a phase is; and that it is at work, while it says nothing. */
function display(progress: (text: string, fraction?: number) => void): Display {
  let shown = -Infinity;
  let last = performance.now();
  let [text, fraction]: [string, number?] = ['at work'];
  const timer = setInterval(() => {
    const quiet = performance.now() - last;
    if (quiet >= silence) progress(`${text} (nothing was said for ${duration(quiet)})`, fraction);
  }, silence);
  return {
    show: (words, part, due = false) => {
      [text, fraction] = [words, part];
      if (!due && performance.now() - shown < showEvery) return;
      shown = performance.now();
      progress(words, part);
    },
    heard: () => {
      last = performance.now();
    },
    stop: () => clearInterval(timer),
  };
}
