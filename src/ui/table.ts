import { stripVTControlCharacters } from 'node:util';

export interface Column {
  readonly title: string;
  readonly align?: 'left' | 'right';
  /** Columns with the highest number are left out first when the terminal is too narrow; 0 (default) never is. */
  readonly optional?: number;
  /** May be cut with an ellipsis when the terminal is too narrow. */
  readonly flexible?: boolean;
}

const gap = 2;
const shortestFlexible = 12;

/**
 * A table of plain text without borders, for a terminal of `width` columns: optional columns are left out first, then
 * flexible ones are cut; what still doesn't fit wraps in the terminal, so that nothing is hidden in silence.
 */
export function table(
  columns: readonly Column[],
  rows: readonly (readonly string[])[],
  width: number,
): string {
  const widths = columns.map((column, i) =>
    Math.max(column.title.length, ...rows.map((row) => widthOf(row[i] ?? ''))),
  );
  const shown = columns.map((_, i) => i);
  const total = (): number => shown.reduce((sum, i) => sum + (widths[i] ?? 0) + gap, -gap);
  while (total() > width) {
    const worst = shown.reduce(
      (best, i) => ((columns[i]?.optional ?? 0) > (columns[best]?.optional ?? 0) ? i : best),
      shown[0] ?? 0,
    );
    if (!columns[worst]?.optional) break;
    shown.splice(shown.indexOf(worst), 1);
  }
  for (const i of shown) {
    const excess = total() - width;
    if (excess > 0 && columns[i]?.flexible) {
      widths[i] = Math.max(shortestFlexible, (widths[i] ?? 0) - excess);
    }
  }
  const line = (cells: readonly string[]): string =>
    shown
      .map((i) => pad(cut(cells[i] ?? '', widths[i] ?? 0), widths[i] ?? 0, columns[i]?.align ?? 'left'))
      .join(' '.repeat(gap))
      .trimEnd();
  return [line(columns.map((column) => column.title)), ...rows.map(line)].join('\n');
}

/** Columns that a text takes on the terminal, colours aside. */
export function widthOf(text: string): number {
  return stripVTControlCharacters(text).length;
}

function cut(text: string, width: number): string {
  return widthOf(text) <= width ? text : `${stripVTControlCharacters(text).slice(0, width - 1)}…`;
}

function pad(text: string, width: number, align: 'left' | 'right'): string {
  const fill = ' '.repeat(Math.max(0, width - widthOf(text)));
  return align === 'right' ? fill + text : text + fill;
}
