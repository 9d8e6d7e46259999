import { formatBytes } from '../core/bytes.ts';

/** A line of a chart, in the units that charts draw: time in milliseconds since 1970, sizes in bytes. */
export interface ChartSeries {
  readonly label: string;
  /** Oldest first; no size where the line is interrupted. */
  readonly points: readonly { readonly at: number; readonly size: number | undefined }[];
}

export interface Tick {
  readonly value: number;
  readonly label: string;
}

/** What a chart shows, from edge to edge. */
export interface Frame {
  readonly from: number;
  readonly to: number;
  readonly low: number;
  readonly high: number;
  readonly sizes: readonly Tick[];
}

const minute = 60_000;
const hour = 60 * minute;
const day = 24 * hour;

/** The frame that holds all series; sizes begin at 0 unless all of them lie far above it. */
export function frameOf(series: readonly ChartSeries[], sizeTicks: number): Frame {
  const points = series.flatMap((each) => each.points);
  const times = points.map(({ at }) => at);
  const sizes = points.map(({ size }) => size).filter((size) => size !== undefined);
  const last = times.reduce((a, b) => Math.max(a, b), 0);
  const first = times.reduce((a, b) => Math.min(a, b), last);
  // A single look has no extent; half a minute before it makes it a point on an axis.
  const from = first === last ? last - minute / 2 : first;
  const max = sizes.reduce((a, b) => Math.max(a, b), 0);
  const min = sizes.reduce((a, b) => Math.min(a, b), max);
  const floor = min > max * 0.7 && max > min ? min : 0;
  const step = sizeStep((max - floor) / sizeTicks);
  const low = Math.floor(floor / step) * step;
  const high = Math.max(low + step, Math.ceil(max / step) * step);
  const ticks: Tick[] = [];
  for (let value = low; value <= high; value += step) ticks.push({ value, label: formatBytes(value) });
  return { from, to: last, low, high, sizes: ticks };
}

/** The next round step of at least so many bytes: 1, 2, 5 of a unit, or powers of two where 1000 of it are reached. */
function sizeStep(least: number): number {
  let unit = 1;
  while (least / unit > 512) unit *= 1024;
  const round = least / unit > 200 ? [256, 512] : [1, 2, 5, 10, 20, 50, 100, 200];
  return unit * (round.find((each) => each * unit >= least) ?? 512);
}

const timeSteps = [
  ...[1, 2, 5, 10, 15, 30].map((seconds) => seconds * 1000),
  ...[1, 2, 5, 10, 15, 30].map((minutes) => minutes * minute),
  ...[1, 2, 3, 6, 12].map((hours) => hours * hour),
  ...[1, 2, 7, 14, 30, 60, 90, 180, 365].map((days) => days * day),
];

/** Round points in local time, at most so many. */
export function timeTicks(from: number, to: number, most: number): Tick[] {
  const step = timeSteps.find((each) => (to - from) / each <= most) ?? 365 * day;
  const ticks: Tick[] = [];
  for (let value = firstTick(from, step); value <= to; value = nextTick(value, step)) {
    ticks.push({ value, label: timeLabel(value, step) });
  }
  return ticks;
}

/** Days begin at midnight here, and the clock may be put forward in between. */
function firstTick(from: number, step: number): number {
  const start = new Date(from);
  start.setHours(0, 0, 0, 0);
  let value = start.getTime();
  if (step < day) return value + Math.ceil((from - value) / step) * step;
  while (value < from) value = nextTick(value, day);
  return value;
}

function nextTick(value: number, step: number): number {
  if (step < day) return value + step;
  const next = new Date(value);
  next.setDate(next.getDate() + step / day);
  return next.getTime();
}

const months = ['Jan', 'Feb', 'Mar', 'Apr', 'May', 'Jun', 'Jul', 'Aug', 'Sep', 'Oct', 'Nov', 'Dec'];

function timeLabel(value: number, step: number): string {
  const date = new Date(value);
  const clock = clockOf(date, step < minute);
  return step >= day || clock === '00:00' ? dayOf(date) : clock;
}

function clockOf(date: Date, withSeconds: boolean): string {
  const parts = [date.getHours(), date.getMinutes(), ...(withSeconds ? [date.getSeconds()] : [])];
  return parts.map((part) => String(part).padStart(2, '0')).join(':');
}

function dayOf(date: Date): string {
  return `${date.getDate()} ${months[date.getMonth()] ?? ''}`;
}

/** A moment for people, in local time: `21 Nov 2025 14:05`. */
export function momentOf(at: number): string {
  const date = new Date(at);
  return `${dayOf(date)} ${date.getFullYear()} ${clockOf(date, false)}`;
}
