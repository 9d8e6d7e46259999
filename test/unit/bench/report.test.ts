import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { mergePart, readResults, renderTables, type PartResult } from '../../../bench/report.ts';

let folder: string;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'zfsdev-report-'));
});

afterAll(() => rm(folder, { recursive: true, force: true }));

const part = (name: string, measured: string, more: Partial<PartResult> = {}): PartResult => ({
  part: name,
  machine: { processors: '2 x some' },
  date: '2026-01-01',
  figures: [{ what: name, measured, asked: 'little', met: true, values: {} }],
  ...more,
});

it('a part that is measured again takes its old place, and the others stay as they are', () => {
  const before = { parts: [part('a', '1 s'), part('b', '2 s')] };
  expect(mergePart(before, part('a', '3 s')).parts).toEqual([part('a', '3 s'), part('b', '2 s')]);
  expect(mergePart(before, part('c', '4 s')).parts).toEqual([...before.parts, part('c', '4 s')]);
});

it('what was measured on another day, or another machine, has a table of its own', () => {
  const text = renderTables({
    parts: [part('a', '1 s'), part('b', '2 s', { date: '2026-02-02' }), part('c', '3 s')],
  });
  expect(text.match(/^Measured .*$/gm)).toEqual([
    'Measured 2026-01-01: processors 2 x some.',
    'Measured 2026-02-02: processors 2 x some.',
  ]);
  expect(text.indexOf('| c | 3 s')).toBeLessThan(text.indexOf('| b | 2 s'));
});

it('a figure that nothing was asked of is neither met nor missed', () => {
  const told = part('a', '', { figures: [{ what: 'a size', measured: '1 MiB', values: {} }] });
  expect(renderTables({ parts: [told] })).toContain('| a size | 1 MiB |  |  |');
});

it('results that are not there are none, and a file that is something else is not written over', async () => {
  expect(await readResults(join(folder, 'absent.json'))).toEqual({ parts: [] });
  await writeFile(join(folder, 'other.json'), '{"figures":[]}');
  await expect(readResults(join(folder, 'other.json'))).rejects.toThrow('move it away');
});
