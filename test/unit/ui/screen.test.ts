import { EventEmitter } from 'node:events';
import { afterEach, expect, test } from 'vitest';
import { Screen } from '../../../src/ui/screen.ts';

/** A terminal that remembers what was written. */
class Terminal extends EventEmitter {
  columns = 20;
  rows = 3;
  written = '';
  write(text: string): void {
    this.written += text;
  }
  /** What was written since the last call. */
  take(): string {
    const { written } = this;
    this.written = '';
    return written;
  }
}

const terminal = new Terminal();
let text = 'one\ntwo';
const screen = new Screen(terminal, () => text);
afterEach(() => screen.close());

test('only lines that changed are written, and nothing where none did', () => {
  screen.open();
  expect(terminal.take()).toContain('\u001b[?1049h');
  screen.draw();
  expect(terminal.take()).toBe('\u001b[1;1Hone\u001b[K\u001b[2;1Htwo\u001b[K');
  screen.draw();
  expect(terminal.take()).toBe('');
  text = 'one\nTWO';
  screen.draw();
  expect(terminal.take()).toBe('\u001b[2;1HTWO\u001b[K');
  text = 'one';
  screen.draw();
  expect(terminal.take()).toBe('\u001b[2;1H\u001b[J');
  screen.close();
  expect(terminal.take()).toBe('\u001b[?25h\u001b[?1049l');
  screen.draw();
  expect(terminal.take()).toBe('');
});

test('a page never outgrows the terminal, and is drawn anew when that is resized', () => {
  text = 'a line that is too long\n2\n3\n4';
  screen.open();
  screen.draw();
  const page = terminal.take();
  expect(page).toContain('a line that is too …\u001b[K');
  expect(page).not.toContain('4;1H');
  terminal.columns = 40;
  terminal.rows = 4;
  terminal.emit('resize');
  expect(terminal.take()).toMatch(/^\u001b\[2J.*too long.*4;1H4/s);
  screen.close();
  expect(terminal.listenerCount('resize')).toBe(0);
  expect(process.listenerCount('SIGTSTP')).toBe(0);
});
