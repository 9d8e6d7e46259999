import { styleText } from 'node:util';

export type Tone = 'good' | 'bad' | 'weak' | 'faint' | 'strong';

const formats = { good: 'green', bad: 'red', weak: 'yellow', faint: 'gray', strong: 'bold' } as const;

/** Colours a text, or leaves it as it is. */
export type Paint = (tone: Tone, text: string) => string;

/** True if this stream should get colours: NO_COLOR, --no-color, FORCE_COLOR and pipes are honoured. */
export function wantsColor(
  stream: { readonly isTTY?: boolean },
  env: Readonly<NodeJS.ProcessEnv>,
  flag: boolean | undefined,
): boolean {
  if (flag === false || env['NO_COLOR']) return false;
  if (env['FORCE_COLOR'] && env['FORCE_COLOR'] !== '0') return true;
  return stream.isTTY === true && env['TERM'] !== 'dumb';
}

export function painter(color: boolean): Paint {
  return (tone, text) => (color ? styleText(formats[tone], text, { validateStream: false }) : text);
}

/** Colours that are told apart easily, none of which says good or bad by itself; for lines of a chart. */
const hues = ['cyan', 'yellow', 'magenta', 'green', 'blueBright', 'red', 'white', 'gray'] as const;

/** Colours a text as the line of that number. */
export function hue(color: boolean, index: number, text: string): string {
  return color ? styleText(hues[index % hues.length] ?? 'white', text, { validateStream: false }) : text;
}
