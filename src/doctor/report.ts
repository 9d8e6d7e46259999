import { stripVTControlCharacters } from 'node:util';
import type { Paint, Tone } from '../ui/style.ts';
import { allThere } from './checks.ts';
import type { CheckResult, Status } from './check.ts';

const signs: Readonly<Record<Status, { sign: string; tone: Tone }>> = {
  ok: { sign: '✔', tone: 'good' },
  weak: { sign: '!', tone: 'weak' },
  missing: { sign: '✘', tone: 'bad' },
};
const statusWidth = Math.max(...Object.keys(signs).map((status) => status.length));

/** What is found by one check, without the inside. */
export type ShownCheck = Omit<CheckResult, 'finding'>;

/** The document of `doctor --json`; its form is stable. */
export interface DoctorDocument {
  /** True if nothing that is needed is missing. */
  readonly ok: boolean;
  readonly checks: readonly ShownCheck[];
}

export function doctorDocument(results: readonly CheckResult[]): DoctorDocument {
  return { ok: allThere(results), checks: results.map(shown) };
}

function shown(result: CheckResult): ShownCheck {
  const { id, title, status, found, note, neededFor, optional, fix } = result;
  return {
    id,
    title,
    status,
    found,
    ...(note === undefined ? {} : { note }),
    neededFor,
    optional,
    ...(fix === undefined ? {} : { fix }),
  };
}

/** The report for people: a line a check, its mending command below, what to type next at the end. */
export function renderReport(results: readonly CheckResult[], paint: Paint, width: number): string {
  const titleWidth = Math.max(...results.map(({ title }) => title.length));
  const lines = results.flatMap((result) => renderResult(result, titleWidth, paint, width));
  return [...lines, '', ...renderNext(results, paint, width), ''].join('\n');
}

function renderResult(result: CheckResult, titleWidth: number, paint: Paint, width: number): string[] {
  const { sign, tone } = signs[result.status];
  const head = `${paint(tone, `${sign} ${result.status.padEnd(statusWidth)}`)}  ${result.title.padEnd(titleWidth)}  `;
  const indent = ' '.repeat(stripVTControlCharacters(head).length);
  const room = width - indent.length;
  const [first = '', ...rest] = wrap(result.found, room);
  const lines = [head + first, ...rest.map((line) => indent + line)];
  if (result.status === 'ok') return lines;
  const why = [`for ${result.neededFor}`, ...(result.note === undefined ? [] : [result.note])];
  lines.push(...why.flatMap((text) => wrap(text, room)).map((line) => indent + paint('faint', line)));
  // Commands are never broken: they are there to be copied.
  lines.push(...(result.fix ?? []).map((command) => `    ${paint('strong', command)}`));
  return lines;
}

function renderNext(results: readonly CheckResult[], paint: Paint, width: number): string[] {
  const missing = results.filter(({ status }) => status === 'missing');
  const say = (text: string, command: string): string[] => [
    ...wrap(text, width),
    `${paint('strong', 'next:')} ${command}`,
  ];
  if (missing.length === 0) {
    const weak = results.filter(({ status, optional }) => status === 'weak' && !optional).length;
    return say(
      weak === 0
        ? 'This host has all that is needed.'
        : 'Nothing that is needed is missing; what is weak is told above.',
      'zfsdev up zfs-test',
    );
  }
  const what = `Missing: ${missing.map(({ title }) => title).join(', ')}.`;
  const mended = missing.filter(
    ({ finding, fix }) => fix !== undefined && (finding.install ?? finding.commands),
  );
  if (mended.length === missing.length) return say(what, 'zfsdev doctor --fix');
  return mended.length === 0
    ? say(`${what} Mend it as told above, then look again.`, 'zfsdev doctor')
    : say(`${what} --fix mends a part of it; the rest is told above.`, 'zfsdev doctor --fix');
}

/** Breaks a text at spaces so that no line is longer than `width`, unless a single word is. */
export function wrap(text: string, width: number): string[] {
  const lines: string[] = [];
  let line = '';
  for (const word of text.split(/\s+/)) {
    if (line !== '' && line.length + 1 + word.length > width) {
      lines.push(line);
      line = word;
    } else {
      line = line === '' ? word : `${line} ${word}`;
    }
  }
  return [...lines, line];
}
