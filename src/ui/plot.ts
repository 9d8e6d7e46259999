import { frameOf, timeTicks, type ChartSeries, type Frame } from './axis.ts';
import { hue } from './style.ts';

export interface PlotOptions {
  /** Columns in all, and rows of the plot itself without its time axis. */
  readonly width: number;
  readonly height: number;
  /** Lines of one colour are told apart by letters on them. */
  readonly color: boolean;
  /** Braille and box-drawing characters; without, a dot is a letter of ASCII. */
  readonly unicode: boolean;
}

/** Whether the terminal can show more than ASCII: it can unless its locale or its kind says otherwise. */
export function speaksUnicode(env: Readonly<NodeJS.ProcessEnv>): boolean {
  const locale = env['LC_ALL'] || env['LC_CTYPE'] || env['LANG'];
  // The Linux console has a font of 256 characters, without these.
  if (env['TERM'] === 'linux' || env['TERM'] === 'dumb') return false;
  return !locale || /utf-?8/i.test(locale);
}

const asciiMarks = '*+ox#@%&';

/** What marks a series in the plot and in the legend that the caller prints below. */
export function markOf(index: number, count: number, { color, unicode }: PlotOptions): string {
  if (!unicode) return count === 1 ? '*' : hue(color, index, asciiMarks[index % asciiMarks.length] ?? '*');
  return color || count === 1 ? hue(color, index, '━') : letter(index);
}

function letter(index: number): string {
  return String.fromCharCode(97 + (index % 26));
}

/** Lines of size over time with both axes, as text of `width` columns at most; no trailing newline. */
export function plot(series: readonly ChartSeries[], options: PlotOptions): string {
  const frame = frameOf(series, Math.max(2, Math.floor(options.height / 3)));
  const gutter = Math.max(...frame.sizes.map(({ label }) => label.length));
  const columns = Math.max(10, options.width - gutter - 2);
  const canvas = new Canvas(columns, options.height, options.unicode);
  for (const [index, { points }] of series.entries()) drawSeries(canvas, frame, index, points);
  const [tee, bar] = options.unicode ? ['┤', '│'] : ['+', '|'];
  const labels = new Map(
    frame.sizes.map(({ value, label }) => [
      Math.round((1 - (value - frame.low) / (frame.high - frame.low)) * (options.height - 1)),
      label,
    ]),
  );
  const rows = canvas.rows(series.length, options).map((row, y) => {
    const label = labels.get(y);
    return `${(label ?? '').padStart(gutter)} ${label === undefined ? bar : tee}${row}`.trimEnd();
  });
  return [...rows, ...timeAxis(frame, gutter, columns, options.unicode)].join('\n');
}

function drawSeries(canvas: Canvas, frame: Frame, index: number, points: ChartSeries['points']): void {
  let previous: readonly [number, number] | undefined;
  for (const { at, size } of points) {
    if (size === undefined) {
      previous = undefined;
      continue;
    }
    const x = Math.round(((at - frame.from) / (frame.to - frame.from)) * (canvas.width - 1));
    const y = Math.round((1 - (size - frame.low) / (frame.high - frame.low)) * (canvas.height - 1));
    canvas.line(index, previous ?? [x, y], [x, y]);
    previous = [x, y];
  }
}

/** Dots of a braille cell by column and row; Unicode numbers them in the order of an old display. */
const brailleDots = [
  [0x01, 0x02, 0x04, 0x40],
  [0x08, 0x10, 0x20, 0x80],
] as const;
const lettersApart = 12;

/** A grid of cells: 2 x 4 dots each in braille, one in ASCII. Where lines cross, the later one gives the colour. */
class Canvas {
  readonly width: number;
  readonly height: number;
  readonly #cells: { dots: number; owner: number }[][];
  readonly #across: number;
  readonly #down: number;

  constructor(columns: number, rows: number, braille: boolean) {
    [this.#across, this.#down] = braille ? [2, 4] : [1, 1];
    this.width = columns * this.#across;
    this.height = rows * this.#down;
    this.#cells = Array.from({ length: rows }, () =>
      Array.from({ length: columns }, () => ({ dots: 0, owner: -1 })),
    );
  }

  /** A straight line of dots, both ends included. */
  line(owner: number, [x0, y0]: readonly [number, number], [x1, y1]: readonly [number, number]): void {
    const steps = Math.max(1, Math.abs(x1 - x0), Math.abs(y1 - y0));
    for (let i = 0; i <= steps; i += 1) {
      this.#dot(owner, Math.round(x0 + ((x1 - x0) * i) / steps), Math.round(y0 + ((y1 - y0) * i) / steps));
    }
  }

  #dot(owner: number, x: number, y: number): void {
    const cell = this.#cells[Math.floor(y / this.#down)]?.[Math.floor(x / this.#across)];
    if (!cell) return;
    cell.dots |= this.#across === 1 ? 1 : (brailleDots[x % 2 === 0 ? 0 : 1][y % 4] ?? 0);
    cell.owner = owner;
  }

  rows(count: number, options: PlotOptions): string[] {
    return this.#cells.map((row) =>
      row
        .map(({ dots, owner }, x) => {
          if (dots === 0) return ' ';
          if (this.#across === 1) return markOf(owner, count, options);
          const lettered = !options.color && count > 1 && (x + owner * 3) % lettersApart === 0;
          return lettered ? letter(owner) : hue(options.color, owner, String.fromCharCode(0x2800 + dots));
        })
        .join(''),
    );
  }
}

/** The line below the plot with its ticks, and their labels. */
function timeAxis(frame: Frame, gutter: number, columns: number, unicode: boolean): string[] {
  const [corner, dash, tee] = unicode ? ['└', '─', '┬'] : ['+', '-', '+'];
  const line = Array.from({ length: columns }, () => dash);
  const text = Array.from({ length: columns }, () => ' ');
  let free = 0;
  for (const { value, label } of timeTicks(frame.from, frame.to, Math.floor(columns / 10))) {
    const x = columnOf(value, frame, columns);
    const start = Math.min(columns - label.length, Math.max(0, x - Math.floor(label.length / 2)));
    if (start < free) continue;
    line[x] = tee;
    for (const [i, char] of [...label].entries()) text[start + i] = char;
    free = start + label.length + 2;
  }
  const indent = ' '.repeat(gutter + 1);
  return [`${indent}${corner}${line.join('')}`, `${indent} ${text.join('')}`.trimEnd()];
}

function columnOf(value: number, { from, to }: Frame, columns: number): number {
  return Math.round(((value - from) / (to - from)) * (columns - 1));
}
