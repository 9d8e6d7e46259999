import { spawnSync } from 'node:child_process';
import { readFile } from 'node:fs/promises';
import { cpus, totalmem, version as kernel } from 'node:os';

export interface Figure {
  readonly what: string;
  readonly measured: string;
  /** What was aimed at; left out for a figure that is told only. */
  readonly asked?: string;
  readonly met?: boolean;
  readonly values: Readonly<Record<string, number>>;
}

/** What one part of the benchmarks found, when, and on what. */
export interface PartResult {
  readonly part: string;
  readonly machine: Readonly<Record<string, string>>;
  readonly date: string;
  readonly figures: readonly Figure[];
}

export interface Results {
  readonly parts: readonly PartResult[];
}

/** What an earlier run wrote; nothing if there was none. @throws Error if the file is there and is something else */
export async function readResults(path: string): Promise<Results> {
  let text: string;
  try {
    text = await readFile(path, 'utf8');
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return { parts: [] };
    throw error;
  }
  const found = JSON.parse(text) as Partial<Results>;
  if (!Array.isArray(found.parts)) throw new Error(`${path} has no results of the benchmarks: move it away`);
  return { parts: found.parts };
}

/** The results with one part measured anew, in its old place or at the end; all others stay. */
export function mergePart({ parts }: Results, measured: PartResult): Results {
  const present = parts.some(({ part }) => part === measured.part);
  return {
    parts: present
      ? parts.map((each) => (each.part === measured.part ? measured : each))
      : [...parts, measured],
  };
}

export function describeMachine(): Record<string, string> {
  const firstLine = (program: string): string =>
    spawnSync(program, ['--version'], { encoding: 'utf8' }).stdout?.split('\n')[0] ?? 'absent';
  return {
    processors: `${cpus().length} x ${cpus()[0]?.model.trim() ?? 'unknown'}`,
    memory: `${Math.round(totalmem() / 2 ** 30)} GiB`,
    kernel: kernel(),
    node: process.version,
    qemu: firstLine('qemu-system-x86_64'),
  };
}

/** One table for all that was measured on one day and one machine. */
export function renderTables({ parts }: Results): string {
  const tables = new Map<string, Figure[]>();
  for (const { date, machine, figures } of parts) {
    const words = Object.entries(machine).map(([key, value]) => `${key} ${value}`);
    const heading = `Measured ${date}: ${words.join('; ')}.`;
    tables.set(heading, [...(tables.get(heading) ?? []), ...figures]);
  }
  return [...tables]
    .map(([heading, figures]) =>
      [heading, '', '| what | measured | asked | met |', '|---|---|---|---|', ...figures.map(row)].join('\n'),
    )
    .join('\n\n');
}

function row({ what, measured, asked = '', met }: Figure): string {
  return `| ${what} | ${measured} | ${asked} | ${met === undefined ? '' : met ? 'yes' : 'no'} |`;
}
