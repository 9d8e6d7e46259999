import { formatBytes } from '../core/bytes.ts';
import { frameOf, momentOf, timeTicks, type ChartSeries, type Frame } from './axis.ts';

export interface SvgOptions {
  readonly title: string;
  /** For those who can't see it: what it shows, in a sentence. */
  readonly description: string;
}

const width = 960;
const plotHeight = 360;
const left = 92;
const right = 28;
const legendTop = 64;
const legendRow = 24;
const legendColumns = 3;
const axisHeight = 56;

/** Lines in the order of the series, for light and for dark backgrounds, chosen to be told apart with any kind of eyes. */
const colors: readonly (readonly [light: string, dark: string])[] = [
  ['#2a78d6', '#3987e5'],
  ['#eb6834', '#d95926'],
  ['#1baf7a', '#199e70'],
  ['#eda100', '#c98500'],
  ['#4a3aa7', '#9085e9'],
  ['#e34948', '#e66767'],
  ['#008300', '#3aa63a'],
  ['#e87ba4', '#d55181'],
];

/** A line chart of sizes over time as an SVG document of its own, readable on light and dark backgrounds. */
export function svgChart(series: readonly ChartSeries[], { title, description }: SvgOptions): string {
  const frame = frameOf(series, 6);
  const top = legendTop + Math.ceil(series.length / legendColumns) * legendRow + 12;
  const height = top + plotHeight + axisHeight;
  const place = placer(frame, top);
  return `${[
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" width="${width}" height="${height}" role="img" aria-labelledby="title description">`,
    `<title id="title">${escaped(title)}</title>`,
    `<desc id="description">${escaped(description)}</desc>`,
    `<style>\n${styles()}\n</style>`,
    `<rect class="paper" width="${width}" height="${height}"/>`,
    `<text class="title" x="${left}" y="34">${escaped(title)}</text>`,
    `<text class="faint" x="${left}" y="54">${escaped(`${momentOf(frame.from)} to ${momentOf(frame.to)}, blocks on the host`)}</text>`,
    ...legend(series),
    ...axes(frame, place, top),
    ...series.map((each, index) => line(each, index, place)),
    '</svg>',
  ].join('\n')}\n`;
}

interface Placer {
  readonly x: (at: number) => number;
  readonly y: (size: number) => number;
}

function placer({ from, to, low, high }: Frame, top: number): Placer {
  return {
    x: (at) => rounded(left + ((at - from) / (to - from)) * (width - left - right)),
    y: (size) => rounded(top + (1 - (size - low) / (high - low)) * plotHeight),
  };
}

function styles(): string {
  const lines = (shade: 0 | 1): string[] =>
    colors.map((pair, i) => `.l${i} { stroke: ${pair[shade]} } .d${i} { fill: ${pair[shade]} }`);
  const dark = [
    '.paper { fill: #1a1a19 }',
    'text, .title { fill: #f2f1ee }',
    '.faint { fill: #b5b3ac }',
    '.grid { stroke: #3a3936 }',
    '.axis { stroke: #8a8880 }',
    ...lines(1),
  ];
  return [
    "text { font: 13px system-ui, 'DejaVu Sans', sans-serif; fill: #1a1a19 }",
    '.title { font-size: 18px; font-weight: 600 }',
    '.faint { fill: #5c5a55 }',
    '.paper { fill: #ffffff }',
    '.grid { stroke: #e4e2dc } .axis { stroke: #8a8880 }',
    '.line { fill: none; stroke-width: 2; stroke-linejoin: round; stroke-linecap: round }',
    ...lines(0),
    `@media (prefers-color-scheme: dark) {\n${dark.map((rule) => `  ${rule}`).join('\n')}\n}`,
  ].join('\n');
}

const longestLabel = 22;

function legend(series: readonly ChartSeries[]): string[] {
  const column = (width - left - right) / legendColumns;
  return series.flatMap(({ label, points }, index) => {
    const x = rounded(left + (index % legendColumns) * column);
    const y = legendTop + Math.floor(index / legendColumns) * legendRow + 16;
    const last = points.map(({ size }) => size).findLast((size) => size !== undefined) ?? 0;
    const name = label.length > longestLabel ? `${label.slice(0, longestLabel - 1)}…` : label;
    return [
      `<path class="line l${index % colors.length}" d="M${x} ${y - 4}h22"/>`,
      `<text x="${x + 30}" y="${y}">${escaped(name)} <tspan class="faint">${formatBytes(last)}</tspan></text>`,
    ];
  });
}

function axes(frame: Frame, { x, y }: Placer, top: number): string[] {
  const bottom = top + plotHeight;
  return [
    ...frame.sizes.flatMap(({ value, label }) => [
      `<path class="grid" d="M${left} ${y(value)}H${width - right}"/>`,
      `<text class="faint" x="${left - 10}" y="${y(value) + 4}" text-anchor="end">${label}</text>`,
    ]),
    ...timeTicks(frame.from, frame.to, 9).flatMap(({ value, label }) => [
      `<path class="axis" d="M${x(value)} ${bottom}v6"/>`,
      `<text class="faint" x="${x(value)}" y="${bottom + 24}" text-anchor="middle">${label}</text>`,
    ]),
    `<path class="axis" d="M${left} ${bottom}H${width - right}"/>`,
  ];
}

/** One line, in pieces where it was interrupted, with a dot at its end and one for each piece that is a single point. */
function line({ label, points }: ChartSeries, index: number, { x, y }: Placer): string {
  const pieces: [number, number][][] = [[]];
  for (const { at, size } of points) {
    if (size === undefined) pieces.push([]);
    else pieces.at(-1)?.push([x(at), y(size)]);
  }
  const drawn = pieces.filter((piece) => piece.length > 0);
  const path = drawn.map((piece) => `M${piece.map((point) => point.join(' ')).join('L')}`).join('');
  const dots = drawn
    .filter((piece, i) => piece.length === 1 || i === drawn.length - 1)
    .map((piece) => piece.at(-1));
  const color = index % colors.length;
  return [
    `<g><title>${escaped(label)}</title>`,
    `<path class="line l${color}" d="${path}"/>`,
    ...dots.map((dot) => (dot ? `<circle class="d${color}" cx="${dot[0]}" cy="${dot[1]}" r="4"/>` : '')),
    '</g>',
  ].join('');
}

function rounded(value: number): number {
  return Math.round(value * 10) / 10;
}

/** Text as XML has it; what XML 1.0 can't hold at all becomes a question mark. */
function escaped(text: string): string {
  return text
    .replace(
      /[\u0000-\u0008\u000b\u000c\u000e-\u001f\ufffe\uffff]|[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]/g,
      '?',
    )
    .replaceAll('&', '&amp;')
    .replaceAll('<', '&lt;')
    .replaceAll('>', '&gt;')
    .replaceAll('"', '&quot;');
}
