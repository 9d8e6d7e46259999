import { lstat, realpath } from 'node:fs/promises';
import { dirname } from 'node:path';
import { formatBytes } from '../core/bytes.ts';
import { ExitCode, Failure, hasCode, messageOf } from '../core/errors.ts';
import { parseDuration } from '../host/deadline.ts';
import { exists, writeFileAtomically } from '../host/files.ts';
import { readHistory, recordSample, sampleOf, type Sample } from '../storage/history.ts';
import { growthOf, seriesOf, type Series } from '../storage/series.ts';
import { surveyUsage } from '../storage/usage.ts';
import { momentOf } from '../ui/axis.ts';
import { markOf, plot, speaksUnicode, type PlotOptions } from '../ui/plot.ts';
import { svgChart } from '../ui/svg-chart.ts';
import { table } from '../ui/table.ts';
import type { Session } from './session.ts';
import type { UsageOptions } from './usage.ts';
import { signed } from './usage-report.ts';

export interface HistoryOptions extends UsageOptions {
  readonly since?: string;
  readonly svg?: string;
}

/** More lines than this can't be told apart. */
const mostLines = 8;

/** `zfsdev usage --history`: how the disks grew, as seen by each `usage`; this one is a look as well. */
export async function history(
  session: Session,
  names: readonly string[],
  options: HistoryOptions,
): Promise<number> {
  const { ctx } = session;
  const since = parseDuration(options.since ?? '7d');
  if (options.svg === '-' && session.json) {
    throw new Failure('usage', '--svg - and --json both want standard output', { hint: '--svg FILE --json' });
  }
  if (options.svg !== undefined && options.svg !== '-') await checkTarget(options.svg);
  const question = { names: [], all: options.all === true, filesOnly: true };
  const now = sampleOf(await surveyUsage(ctx, question), question);
  const earlier = await readHistory(ctx.paths.usageHistory);
  await recordSample(ctx, now);
  const samples = named([...earlier, now], names).filter(({ at }) => at >= now.at - since && at <= now.at);
  const series = seriesOf(samples).filter(({ kind }) => names.length === 0 || kind === 'machine');
  const drawn = mostTelling(series);
  if (options.svg !== undefined) return writeSvg(session, options.svg, drawn, samples);
  await session.answer(document(samples), () => text(session, series, drawn, samples));
  return ExitCode.done;
}

/** Samples of these machines alone. @throws Failure `not-found` for a name that was never seen. */
function named(samples: readonly Sample[], names: readonly string[]): readonly Sample[] {
  if (names.length === 0) return samples;
  const known = new Set(samples.flatMap(({ machines }) => machines.map(({ name }) => name)));
  const missing = names.find((name) => !known.has(name));
  if (missing !== undefined) {
    throw new Failure('not-found', `no look at the disks has ever seen "${missing}"`, {
      hint:
        known.size > 0 ? `it has seen ${[...known].sort().join(', ')}` : 'zfsdev list shows what there is',
    });
  }
  return samples.map((sample) => ({
    ...sample,
    machines: sample.machines.filter(({ name }) => names.includes(name)),
    shared: [],
  }));
}

/** Machines, or all there is if there are none; the ones that changed most, then the largest. */
function mostTelling(series: readonly Series[]): readonly Series[] {
  const machines = series.filter(({ kind }) => kind === 'machine');
  if (machines.length === 0) return series.filter(({ kind }) => kind === 'all');
  if (machines.length <= mostLines) return machines;
  const weight = (each: Series): [number, number] => {
    const { min, max } = growthOf(each);
    return [max - min, max];
  };
  const ranked = [...machines].sort((a, b) => {
    const [of, size] = [weight(a), weight(b)];
    return size[0] - of[0] || size[1] - of[1];
  });
  const chosen = new Set(ranked.slice(0, mostLines));
  return machines.filter((each) => chosen.has(each));
}

function text(
  session: Session,
  series: readonly Series[],
  drawn: readonly Series[],
  samples: readonly Sample[],
): string {
  const [first, last] = [samples[0], samples.at(-1)];
  if (!first || !last || drawn.length === 0)
    return 'There is nothing to plot yet: every zfsdev usage is a look.\n';
  const options: PlotOptions = {
    width: session.width,
    height: Math.min(16, Math.max(8, (process.stdout.rows ?? 24) - series.length - 8)),
    color: session.paint('strong', '') !== '',
    unicode: speaksUnicode(session.ctx.env),
  };
  const looks = `${samples.length} ${samples.length === 1 ? 'look' : 'looks'}`;
  const span = `${looks}, ${momentOf(first.at)} to ${momentOf(last.at)}`;
  const left = series.filter(({ kind }) => kind === 'machine').length - drawn.length;
  return [
    session.paint('faint', span),
    plot(drawn.map(chartSeries), options),
    '',
    table(
      columns,
      series.map((each) => row(each, drawn.indexOf(each), drawn.length, options)),
      session.width,
    ),
    ...(left > 0
      ? [`\n${mostLines} are drawn, which changed most; zfsdev usage --history NAME... draws others`]
      : []),
    '',
  ].join('\n');
}

const columns = [
  { title: ' ' },
  { title: 'NAME', flexible: true },
  { title: 'FIRST', align: 'right', optional: 1 },
  { title: 'LAST', align: 'right' },
  { title: 'MIN', align: 'right', optional: 3 },
  { title: 'MAX', align: 'right', optional: 2 },
  { title: 'GROWTH', align: 'right' },
] as const;

function row(series: Series, index: number, count: number, options: PlotOptions): string[] {
  const { first, last, min, max, change } = growthOf(series);
  const sizes = [first, last, min, max].map(formatBytes);
  const growth = change === 0 ? '-' : signed(change);
  return [index < 0 ? ' ' : markOf(index, count, options), labelOf(series), ...sizes, growth];
}

function labelOf({ name, driver, gone }: Series): string {
  return `${name}${driver === 'lima' ? ' (lima)' : ''}${gone ? ' (gone)' : ''}`;
}

function chartSeries(series: Series): { label: string; points: Series['points'] } {
  return { label: labelOf(series), points: series.points };
}

async function writeSvg(
  session: Session,
  target: string,
  drawn: readonly Series[],
  samples: readonly Sample[],
): Promise<number> {
  if (drawn.length === 0) {
    throw new Failure('not-found', 'there is nothing to draw yet', {
      hint: 'zfsdev up zfs-test makes a machine',
    });
  }
  const svg = svgChart(drawn.map(chartSeries), {
    title: 'What disks take on the host',
    description: drawn.map(sentence).join(' '),
  });
  if (target === '-') {
    session.write(svg);
    return ExitCode.done;
  }
  await writeFileAtomically(await realpath(target).catch(() => target), svg, 0o644);
  await session.answer(
    { svg: target, lines: drawn.length, samples: samples.length },
    () => `${target} is written\n`,
  );
  return ExitCode.done;
}

function sentence(series: Series): string {
  const { first, last } = growthOf(series);
  return `${labelOf(series)}: from ${formatBytes(first)} to ${formatBytes(last)}.`;
}

/** Only a file is replaced, and links are followed. @throws Failure `usage` for anything else in its place. */
async function checkTarget(target: string): Promise<void> {
  try {
    const found = await lstat(await realpath(target));
    if (found.isFile()) return;
    const what = found.isDirectory() ? 'a folder' : 'not a file';
    throw new Failure('usage', `${target} is ${what}`, {
      hint: 'name a file: --svg growth.svg (- is standard output)',
    });
  } catch (error) {
    if (error instanceof Failure) throw error;
    const isLink = await lstat(target).then(
      (found) => found.isSymbolicLink(),
      () => false,
    );
    if (isLink)
      throw new Failure('usage', `${target} is a link that leads nowhere`, {
        hint: 'remove it, or name another file',
      });
    const folder = dirname(target);
    if (hasCode(error, 'ENOENT') && !exists(folder)) {
      throw new Failure('usage', `there is no folder ${folder}`, { hint: `mkdir -p ${folder}` });
    }
    if (!hasCode(error, 'ENOENT')) {
      throw new Failure('files', `${target} can't be looked at: ${messageOf(error)}`, { cause: error });
    }
  }
}

function document(samples: readonly Sample[]): object {
  return {
    samples: samples.map(({ at, scope, machines, shared, filesystems, total }) => ({
      at: new Date(at).toISOString(),
      scope,
      machines: machines.map(({ name, driver, actual, virtual }) => ({
        name,
        driver,
        actualBytes: actual,
        virtualBytes: virtual,
      })),
      shared: shared.map(({ what, key, actual }) => ({ what, key, actualBytes: actual })),
      filesystems: filesystems.map(({ path, free, total: size }) => ({
        path,
        freeBytes: free,
        totalBytes: size,
      })),
      totalBytes: total,
    })),
  };
}
