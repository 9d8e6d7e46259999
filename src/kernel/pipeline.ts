import { appendFileSync } from 'node:fs';
import { step } from '../core/events.ts';
import type { Context } from '../host/context.ts';
import type { Deadline } from '../host/deadline.ts';
import { duration } from '../ui/progress.ts';
import { phases, type Builder, type Phase } from './builder.ts';
import { explainLoss, explainPhase } from './diagnose.ts';
import { estimateMake, makeMeter } from './progress.ts';

/** Milliseconds between two words on how far a phase is: a make has hundreds of lines a second. */
const showEvery = 500;

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
    appendFileSync(options.log, `--- ${phase} (${new Date().toISOString()})\n`);
    const title = phase === 'zfs' && !options.zfs ? 'Tidying up' : titles[phase];
    await step(ctx.emit, phase, title, (progress) => runPhase(ctx, builder, phase, facts, options, progress));
    if (phase === 'config') tellTime(ctx, facts, options.deadline);
  }
  return facts;
}

/** Before the long part begins: how long it may be, and whether it will be let be that long. */
function tellTime(ctx: Context, facts: Facts, deadline: Deadline): void {
  const fact = (name: string): number => Number(facts.get(name) ?? 0);
  const { objects, milliseconds } = estimateMake(fact('options'), fact('cost'), fact('jobs'));
  if (milliseconds === undefined) return;
  const text = `about ${objects} objects are to be compiled, which takes about ${duration(milliseconds)} here`;
  if (milliseconds < deadline.left()) return ctx.emit({ type: 'notice', level: 'info', text });
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
  let shown = 0;
  const show = (text: string, fraction?: number): void => {
    if (performance.now() - shown < showEvery) return;
    shown = performance.now();
    progress(text, fraction);
  };
  const onLine = (line: string): void => {
    tell?.(line);
    const fact = /^@ (\S+) (.*)$/.exec(line);
    if (fact?.[1]) {
      facts.set(fact[1], fact[2] ?? '');
      if (fact[1] === 'notice') ctx.emit({ type: 'notice', level: 'info', text: fact[2] ?? '' });
      return;
    }
    if (line.startsWith('! ')) told = line.slice(2);
    const seen = meter?.take(line);
    if (seen) show(seen.text, seen.fraction);
    else if (phase === 'zfs' && /^(checking|configure:|  CC )/.test(line)) show(line.trim());
  };
  const place = { log, afterwards: builder.afterwards };
  const exitCode = await builder
    .run(phase, { onLine, deadline: deadline.left(), signal: ctx.signal })
    .catch((error: unknown) => {
      throw ctx.signal.aborted ? error : explainLoss(phase, error, place);
    });
  const peak = facts.get('peak');
  if (peak !== undefined) await builder.grown?.(Number(peak) * 1024);
  if (exitCode !== 0) throw explainPhase(phase, exitCode, told, place);
}
