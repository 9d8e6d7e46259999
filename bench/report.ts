import { spawnSync } from 'node:child_process';
import { cpus, totalmem, version as kernel } from 'node:os';

export interface Figure {
  readonly what: string;
  readonly measured: string;
  /** What was aimed at. */
  readonly asked: string;
  readonly met: boolean;
  readonly values: Readonly<Record<string, number>>;
}

export interface Report {
  readonly machine: Readonly<Record<string, string>>;
  readonly date: string;
  readonly figures: readonly Figure[];
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

export function renderTable({ machine, date, figures }: Report): string {
  return [
    `Measured ${date}: ${Object.entries(machine)
      .map(([key, value]) => `${key} ${value}`)
      .join('; ')}.`,
    '',
    '| what | measured | asked | met |',
    '|---|---|---|---|',
    ...figures.map(
      ({ what, measured, asked, met }) => `| ${what} | ${measured} | ${asked} | ${met ? 'yes' : 'no'} |`,
    ),
  ].join('\n');
}
