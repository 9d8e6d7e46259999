import { setTimeout as delay } from 'node:timers/promises';
import { formatBytes } from '../core/bytes.ts';
import { ExitCode, Failure } from '../core/errors.ts';
import { parseDuration } from '../host/deadline.ts';
import { differenceOf, type MachineChange, type UsageDifference } from '../storage/difference.ts';
import { recordSample, sampleOf } from '../storage/history.ts';
import { surveyUsage, type MachineUsage, type Usage } from '../storage/usage.ts';
import { duration } from '../ui/progress.ts';
import { Screen } from '../ui/screen.ts';
import type { Session } from './session.ts';
import type { UsageOptions } from './usage.ts';
import { hostLines, machineTable, problemsOf, signed, usageDocument, type Look } from './usage-report.ts';

export interface WatchOptions extends UsageOptions {
  readonly interval?: string;
}

/** Looks more often than this would be most of what the host does. */
const shortest = 100;

/** What has been seen so far. */
interface Watched {
  readonly first: Usage;
  readonly since: number;
  readonly now: Usage;
  readonly at: number;
}

/**
 * `zfsdev usage --watch`: looks again and again at what the host has, until Ctrl-C or SIGTERM, which are its proper end.
 * Guests are not asked: to be asked, they would write to the disks that are watched.
 */
export async function watch(
  session: Session,
  names: readonly string[],
  options: WatchOptions,
): Promise<number> {
  const interval = parseDuration(options.interval ?? '2s');
  if (interval < shortest) {
    throw new Failure('usage', `--interval ${options.interval} is too short`, {
      hint: '--interval 100ms is the shortest',
    });
  }
  const question = { names, all: options.all === true, filesOnly: true };
  const ended = endOf(session);
  const look = async (): Promise<Usage> => {
    const found = await surveyUsage({ ...session.ctx, signal: ended }, question);
    await recordSample(session.ctx, sampleOf(found, question));
    return found;
  };
  const first = await look();
  const began = Date.now();
  let watched: Watched = { first, since: began, now: first, at: began };
  const view = viewOf(session, () => watched, interval);
  try {
    for (;;) {
      view.show();
      await delay(interval, undefined, { signal: ended });
      watched = { ...watched, now: await look(), at: Date.now() };
    }
  } catch (error) {
    if (!ended.aborted) throw error;
  } finally {
    view.close();
  }
  return ExitCode.done;
}

/** Ends with the session, and when nobody reads any longer (`| head`). */
function endOf({ ctx }: Session): AbortSignal {
  const unread = new AbortController();
  process.stdout.once('error', () => unread.abort());
  return AbortSignal.any([ctx.signal, unread.signal]);
}

interface View {
  show(): void;
  close(): void;
}

/** A page on a terminal; off it, and as JSON, sample after sample. */
function viewOf(session: Session, watched: () => Watched, interval: number): View {
  const { stdout } = process;
  if (session.json) {
    const show = (): void => session.write(`${JSON.stringify(watchedDocument(watched()))}\n`);
    return { show, close: () => undefined };
  }
  const text = (look: Look, rows: number): string => page(look, watched(), rows, interval);
  if (!stdout.isTTY) {
    let gap = '';
    const show = (): void => {
      session.write(`${gap}${text(session, Infinity)}\n`);
      gap = '\n';
    };
    return { show, close: () => undefined };
  }
  const screen = new Screen(stdout, (width, rows) => text({ ...session, width }, rows));
  screen.open();
  return {
    show: () => screen.draw(),
    close: () => {
      screen.close();
      // The last look stays when the screen is gone.
      session.write(`${text({ ...session, width: stdout.columns }, Infinity)}\n`);
    },
  };
}

/** With fewer rows than this, machines are worth more than the sum of what they share. */
const tightRows = 10;

/** The page for so many rows: where these don't do, machines that didn't change are left out first, and their number is told. */
function page(look: Look, watched: Watched, rows: number, interval: number): string {
  const { now, since, at } = watched;
  const difference = differenceOf(watched.first, now);
  const head = `Every ${duration(interval)}, ${duration(at - since)} so far`;
  const hosts = hostLines(now).map((line) => `${line}${growth(difference)}`);
  const foot = rows < tightRows ? hosts : [sharedLine(difference), ...hosts].filter(Boolean);
  const problems = problemsOf(now).map((problem) => look.paint('bad', problem));
  const gone = difference.machines.filter(({ after }) => after === undefined).map(goneLine);
  // Empty lines stand between the parts, and the table has a title.
  const room =
    rows - foot.length - problems.length - gone.length - (problems.length + gone.length > 0 ? 6 : 5);
  const { shown, left } = chosen(now.machines, difference, Math.max(1, room));
  const more = left === 0 ? [] : [`... and ${left} more, for which there is no room here`];
  const changes = changesOf(difference);
  const body =
    now.machines.length === 0
      ? ['There are no instances.']
      : machineTable(look, shown, (machine, path) => changes.get(key(machine, path)) ?? '-').split('\n');
  const parts = [[look.paint('faint', head)], [...body, ...more], [...gone, ...problems], foot];
  return parts
    .filter((part) => part.length > 0)
    .map((part) => part.join('\n'))
    .join('\n\n');
}

function chosen(
  machines: readonly MachineUsage[],
  difference: UsageDifference,
  room: number,
): { shown: readonly MachineUsage[]; left: number } {
  const count = (all: readonly MachineUsage[]): number =>
    all.reduce((sum, { disks }) => sum + Math.max(1, disks.length), 0);
  if (count(machines) <= room) return { shown: machines, left: 0 };
  const changes = new Map(difference.machines.map((each) => [key(each, ''), Math.abs(each.change)]));
  const changeOf = (machine: MachineUsage): number => changes.get(key(machine, '')) ?? 0;
  const picked = new Set<MachineUsage>();
  // One row is for telling how many are left out.
  let free = room - 1;
  for (const machine of [...machines].sort((a, b) => changeOf(b) - changeOf(a))) {
    free -= Math.max(1, machine.disks.length);
    if (free < 0) break;
    picked.add(machine);
  }
  const shown = machines.filter((machine) => picked.has(machine));
  return { shown, left: machines.length - shown.length };
}

function key({ driver, name }: Pick<MachineUsage, 'driver' | 'name'>, path: string): string {
  return `${driver} ${name} ${path}`;
}

/** Disk by disk, what changed. */
function changesOf({ machines }: UsageDifference): Map<string, string> {
  const changes = new Map<string, string>();
  for (const machine of machines) {
    for (const { path, before, change } of machine.disks) {
      if (before === undefined) changes.set(key(machine, path), `new ${signed(change)}`);
      else if (change !== 0) changes.set(key(machine, path), signed(change));
    }
  }
  return changes;
}

function goneLine({ name, before }: MachineChange): string {
  return `${name}: gone, with ${formatBytes(before ?? 0)}`;
}

function sharedLine({ shared }: UsageDifference): string {
  const change = shared.reduce((sum, each) => sum + each.change, 0);
  const size = shared.reduce((sum, { after }) => sum + (after ?? 0), 0);
  if (shared.length === 0) return '';
  return `${formatBytes(size)} of it shared${change === 0 ? '' : ` (${signed(change)})`}`;
}

function growth({ total }: UsageDifference): string {
  return total.change === 0 ? '' : ` (${signed(total.change)})`;
}

/** As `usage --json`, with the time and what changed since the first look. */
function watchedDocument({ first, now, at }: Watched): object {
  const { machines, total } = differenceOf(first, now);
  return {
    at: new Date(at).toISOString(),
    ...usageDocument(now),
    changes: machines.map(({ name, driver, change }) => ({ name, driver, changeBytes: change })),
    totalChangeBytes: total.change,
  };
}
