import { basename } from 'node:path';
import { formatBytes } from '../core/bytes.ts';
import { Failure } from '../core/errors.ts';
import type { Context } from '../host/context.ts';
import { runForUser } from '../host/process.ts';
import { printable } from '../host/run.ts';
import {
  differenceOf,
  type Change,
  type MachineChange,
  type UsageDifference,
} from '../storage/difference.ts';
import { recordSample, sampleOf } from '../storage/history.ts';
import { surveyUsage, type Usage } from '../storage/usage.ts';
import { duration } from '../ui/progress.ts';
import { table } from '../ui/table.ts';
import type { Session } from './session.ts';
import type { UsageOptions } from './usage.ts';
import { sharedLabel, signed } from './usage-report.ts';

/** As a shell has it: no such command, and one that can't be started. */
const notFound = 127;
const notStarted = 126;

/**
 * `zfsdev usage --diff -- CMD`: what a command of the host made grow. Its exit code is passed through. Under `--json` its standard
 * output goes to standard error, so that standard output holds one document.
 */
export async function diff(
  session: Session,
  argv: readonly string[],
  options: UsageOptions,
): Promise<number> {
  const [program, ...args] = argv;
  if (program === undefined) {
    throw new Failure('usage', '--diff measures a command, and there is none', {
      hint: 'zfsdev usage --diff -- zfsdev up zfs-test',
    });
  }
  const all = options.all === true;
  const before = await look(session.ctx, all);
  const began = performance.now();
  let exitCode: number;
  try {
    exitCode = await runForUser([program, ...args], { output: session.json ? 'stderr' : 'stdout' });
  } catch (error) {
    if (!(error instanceof Failure)) throw error;
    await session.fail(error);
    return error.reason === 'dependency' ? notFound : notStarted;
  }
  const took = performance.now() - began;
  // What ended the command was for the command; the look behind it is short.
  const after = await look({ ...session.ctx, signal: new AbortController().signal }, all);
  const difference = differenceOf(before, after);
  await session.answer(document(difference, { argv, exitCode, took }), () =>
    text(session, difference, { argv, exitCode, took }),
  );
  return exitCode;
}

interface Ended {
  readonly argv: readonly string[];
  readonly exitCode: number;
  /** Milliseconds. */
  readonly took: number;
}

async function look(ctx: Context, all: boolean): Promise<Usage> {
  const question = { names: [], all, filesOnly: true };
  const found = await surveyUsage(ctx, question);
  await recordSample(ctx, sampleOf(found, question));
  return found;
}

const columns = [
  { title: 'WHAT', flexible: true },
  { title: 'BEFORE', align: 'right' },
  { title: 'AFTER', align: 'right' },
  { title: 'CHANGE', align: 'right' },
] as const;

function text({ width }: Session, difference: UsageDifference, { argv, exitCode, took }: Ended): string {
  const { machines, shared, filesystems, total } = difference;
  const changed = [
    ...machines.filter(isChanged).flatMap(machineRows),
    ...shared.filter(isChanged).map((each) => row(sharedLabel(each.what, each.key), each)),
  ];
  const same =
    machines.length + shared.length - machines.filter(isChanged).length - shared.filter(isChanged).length;
  const command = `${printable(argv)}: exit code ${exitCode}, ${duration(took)}`;
  const parts = [
    command,
    changed.length === 0 ? 'No disk takes more or less than before.' : table(columns, changed, width),
    [
      `${total.change === 0 ? 'Nothing' : signed(total.change)} in all${same > 0 && changed.length > 0 ? `; ${same} others are as they were` : ''}`,
      ...filesystems.map(
        ({ path, freeBefore, freeAfter }) =>
          `${formatBytes(freeAfter)} free at ${path}${freeAfter === freeBefore ? '' : ` (${signed(freeAfter - freeBefore)})`}`,
      ),
    ].join('\n'),
  ];
  return `\n${parts.join('\n\n')}\n`;
}

function isChanged({ before, after }: Change): boolean {
  return before !== after;
}

/** The machine, and its parts where there is more than one that changed. */
function machineRows(machine: MachineChange): string[][] {
  const { name, driver, disks, other } = machine;
  const label = driver === 'lima' ? `${name} (lima)` : name;
  const parts = [
    ...disks.filter(isChanged).map((disk) => row(`  ${basename(disk.path)}`, disk)),
    ...(other.change === 0 ? [] : [row('  other files', other)]),
  ];
  return [row(`${label}${stateOf(machine)}`, machine), ...(parts.length > 1 ? parts : [])];
}

function stateOf({ before, after }: Change): string {
  return before === undefined ? ' (new)' : after === undefined ? ' (gone)' : '';
}

function row(label: string, { before, after, change }: Change): string[] {
  const size = (value: number | undefined): string => (value === undefined ? '-' : formatBytes(value));
  return [label, size(before), size(after), signed(change)];
}

function document(
  { machines, shared, filesystems, total }: UsageDifference,
  { argv, exitCode, took }: Ended,
): object {
  return {
    command: argv,
    exitCode,
    seconds: Math.round(took) / 1000,
    machines: machines.map(({ name, driver, disks, other, ...change }) => ({
      name,
      driver,
      ...changeDocument(change),
      disks: disks.map(({ path, ...each }) => ({ path, ...changeDocument(each) })),
      other: changeDocument(other),
    })),
    shared: shared.map(({ what, key, ...change }) => ({ what, key, ...changeDocument(change) })),
    filesystems: filesystems.map(({ path, freeBefore, freeAfter }) => ({
      path,
      freeBeforeBytes: freeBefore,
      freeAfterBytes: freeAfter,
    })),
    total: changeDocument(total),
  };
}

/** Null where it wasn't there. */
function changeDocument({ before, after, change }: Change): object {
  return { beforeBytes: before ?? null, afterBytes: after ?? null, changeBytes: change };
}
