import { stripVTControlCharacters } from 'node:util';
import { widthOf } from './table.ts';

/** A terminal that a screen is drawn on. */
export interface ScreenOutput {
  readonly columns: number;
  readonly rows: number;
  write(text: string): unknown;
  on(event: 'resize', listener: () => void): unknown;
  off(event: 'resize', listener: () => void): unknown;
}

const escape = '\u001b[';
const enter = `${escape}?1049h${escape}?25l${escape}H`;
const leave = `${escape}?25h${escape}?1049l`;

/**
 * A page that is drawn again and again on the terminal's second screen, so that what was there before is there again
 * afterwards. Only lines that changed are written. Whatever ends the process short of SIGKILL, the terminal is given back; Ctrl-Z
 * gives it back until the process goes on.
 */
export class Screen {
  readonly #output: ScreenOutput;
  readonly #page: (columns: number, rows: number) => string;
  #shown: readonly string[] = [];
  #isOpen = false;

  /** @param page draws the page for a terminal of so many columns and rows, lines separated by `\n`. */
  constructor(output: ScreenOutput, page: (columns: number, rows: number) => string) {
    this.#output = output;
    this.#page = page;
  }

  open(): void {
    this.#enter();
    this.#output.on('resize', this.#resized);
    process.on('exit', this.#leave);
    process.on('SIGTSTP', this.#suspended);
    process.on('SIGCONT', this.#resumed);
  }

  close(): void {
    this.#output.off('resize', this.#resized);
    process.off('exit', this.#leave);
    process.off('SIGTSTP', this.#suspended);
    process.off('SIGCONT', this.#resumed);
    this.#leave();
  }

  /** Draws the page as it is now; nothing is written where it is the same. */
  draw(): void {
    if (!this.#isOpen) return;
    const { columns, rows } = this.#output;
    const lines = this.#page(columns, rows)
      .split('\n')
      .slice(0, rows)
      .map((line) => clipped(line, columns));
    const changed = lines.flatMap((line, y) =>
      line === this.#shown[y] ? [] : [`${escape}${y + 1};1H${line}${escape}K`],
    );
    if (lines.length < this.#shown.length) changed.push(`${escape}${lines.length + 1};1H${escape}J`);
    this.#shown = lines;
    if (changed.length > 0) this.#output.write(changed.join(''));
  }

  #enter(): void {
    this.#isOpen = true;
    this.#shown = [];
    this.#output.write(enter);
  }

  readonly #leave = (): void => {
    if (!this.#isOpen) return;
    this.#isOpen = false;
    this.#output.write(leave);
  };

  /** What a terminal makes of the old page in its new size can't be known. */
  readonly #resized = (): void => {
    if (!this.#isOpen) return;
    this.#shown = [];
    this.#output.write(`${escape}2J`);
    this.draw();
  };

  readonly #suspended = (): void => {
    this.#leave();
    process.kill(process.pid, 'SIGSTOP');
  };

  readonly #resumed = (): void => {
    if (!this.#isOpen) this.#enter();
    this.draw();
  };
}

/** A line that is too long would wrap, and push the page out of its place. */
function clipped(line: string, columns: number): string {
  return widthOf(line) <= columns ? line : `${stripVTControlCharacters(line).slice(0, columns - 1)}…`;
}
