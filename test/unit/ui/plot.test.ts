import { describe, expect, it, test } from 'vitest';
import { frameOf, momentOf, timeTicks } from '../../../src/ui/axis.ts';
import { plot, speaksUnicode } from '../../../src/ui/plot.ts';
import { svgChart } from '../../../src/ui/svg-chart.ts';

const MiB = 2 ** 20;
const start = new Date(2025, 10, 21, 10).getTime();
const minute = 60_000;

function series(label: string, ...sizes: (number | undefined)[]) {
  return { label, points: sizes.map((size, i) => ({ at: start + i * minute, size: size && size * MiB })) };
}

describe('axes', () => {
  it.each([
    [
      [0, 90],
      ['0 B', '20 MiB', '40 MiB', '60 MiB', '80 MiB', '100 MiB'],
    ],
    [
      [100, 1500],
      ['0 B', '512 MiB', '1 GiB', '1.5 GiB'],
    ],
    // All of it far above 0: the growth would be a flat line.
    [
      [900, 904],
      ['900 MiB', '901 MiB', '902 MiB', '903 MiB', '904 MiB'],
    ],
    [
      [5, 5],
      ['0 B', '1 MiB', '2 MiB', '3 MiB', '4 MiB', '5 MiB'],
    ],
    [[undefined], ['0 B', '1 B']],
  ])('%j MiB are told at round sizes', (sizes, labels) => {
    expect(frameOf([series('a', ...sizes)], 5).sizes.map(({ label }) => label)).toEqual(labels);
  });

  it.each([
    [5 * minute, ['10:00', '10:01', '10:02', '10:03', '10:04', '10:05']],
    [20_000, ['10:00:00', '10:00:05', '10:00:10', '10:00:15', '10:00:20']],
    [24 * 60 * minute, ['12:00', '18:00', '22 Nov', '06:00']],
    [5 * 24 * 60 * minute, ['22 Nov', '23 Nov', '24 Nov', '25 Nov', '26 Nov']],
    [4 * 365 * 24 * 60 * minute, 6],
  ])('%i ms are told at round times', (span, labels) => {
    const ticks = timeTicks(start, start + span, 6).map(({ label }) => label);
    if (typeof labels === 'number') expect(ticks.length).toBeLessThanOrEqual(labels);
    else expect(ticks).toEqual(labels);
  });

  it('a moment has its year', () => expect(momentOf(start)).toBe('21 Nov 2025 10:00'));
});

describe('a plot', () => {
  const plain = { width: 40, height: 6, color: false, unicode: false };

  it('has a line, sizes on the left and times below', () => {
    const lines = plot([series('a', 0, 2, 4, 6, 8)], plain).split('\n');
    expect(lines.slice(0, 6).map((line) => line.slice(0, 8))).toEqual([
      '10 MiB +',
      '       |',
      '       |',
      ' 5 MiB +',
      '       |',
      '   0 B +',
    ]);
    expect(lines[5]?.[8]).toBe('*');
    expect(lines[1]?.at(-1)).toBe('*');
    expect(lines[1]).toHaveLength(40);
    expect(lines[6]).toMatch(/^ {7}\+\+[-+]+$/);
    expect(lines[7]).toMatch(/^ {8}10:00 +10:0\d/);
  });

  it('is interrupted where the thing was not there', () => {
    const rows = plot([series('a', 8, undefined, undefined, undefined, 8)], { ...plain, unicode: true });
    expect(rows.match(/[\u2801-\u28ff]/g)).toHaveLength(2);
  });

  it('tells lines apart by letters where there is no colour, and by colour where there is', () => {
    const both = [series('a', 1, 2), series('b', 3, 4)];
    expect(plot(both, { ...plain, unicode: true })).toMatch(/a[^]*b|b[^]*a/);
    const colored = plot(both, { ...plain, unicode: true, color: true });
    expect(colored).toContain('\u001b[36m');
    expect(colored).toContain('\u001b[33m');
  });

  it.each([20, 60, 200])('keeps to %i columns', (width) => {
    const lines = plot([series('a', 1, 500, 2), series('b', 3)], { ...plain, unicode: true, width }).split(
      '\n',
    );
    expect(Math.max(...lines.map((line) => line.length))).toBeLessThanOrEqual(width);
  });
});

test.each([
  [{}, true],
  [{ LANG: 'de_DE.UTF-8' }, true],
  [{ LANG: 'de_DE.UTF-8', LC_ALL: 'C' }, false],
  [{ LC_CTYPE: 'en_US.ISO-8859-1' }, false],
  [{ TERM: 'linux' }, false],
])('%j: Unicode %j', (env, expected) => expect(speaksUnicode(env)).toBe(expected));

describe('an SVG', () => {
  const svg = svgChart([series('a & <b>', 1, 2, undefined, 4), series('c', 3, 4)], {
    title: 'Growth "now"\u0000\ud800',
    description: 'a grew',
  });

  it('is named and described, its text escaped', () => {
    expect(svg).toContain('<title id="title">Growth &quot;now&quot;??</title>');
    expect(svg).toContain('<desc id="description">a grew</desc>');
    expect(svg).toContain('a &amp; &lt;b&gt;');
    expect(svg).toContain('role="img" aria-labelledby="title description"');
    expect(svg).toContain('prefers-color-scheme: dark');
  });

  it('draws a line in pieces where it was interrupted, and no number that is none', () => {
    expect(svg.match(/<path class="line l0" d="M[^"]*L[^"]*M[^"]*"\/>/g)).toHaveLength(1);
    expect(svg).not.toMatch(/NaN|Infinity|undefined/);
  });
});
