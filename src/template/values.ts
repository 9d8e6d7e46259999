import { bytes, exactBytes, GiB, KiB, MiB, parseBytes, type Bytes } from '../core/bytes.ts';
import { Failure } from '../core/errors.ts';
import { nearest } from '../core/names.ts';

// Readers of single values, for templates and flags alike: they take what YAML or the command line gave, and return
// the value or throw a Failure that says what is wrong with it. Where the value stood is the caller's to say.

/** 64 MiB is the smallest device that ZFS accepts. */
const smallestPoolFile = bytes(64 * MiB);
/** Less than this and Debian doesn't boot to the command channel. */
const smallestMemory = bytes(256 * MiB);

export type Reader<T> = (input: unknown) => T;

export function readText(input: unknown): string {
  if (typeof input !== 'string') throw wrong('must be a text', input);
  const text = input.trim();
  if (text === '') throw new Failure('usage', 'must not be empty');
  if (/\p{Cc}/u.test(text)) throw new Failure('usage', 'must be a single line');
  return text;
}

export function readSize(input: unknown): Bytes {
  if (typeof input === 'string' || typeof input === 'number') return parseBytes(String(input));
  throw wrong('must be a size such as 512MiB or 4GiB', input);
}

export const readMemory: Reader<Bytes> = (input) => atLeast(readSize(input), smallestMemory, 'memory');
export const readPoolFileSize: Reader<Bytes> = (input) =>
  atLeast(readSize(input), smallestPoolFile, 'the size of a file of the pool');

export function readDisk(input: unknown): Bytes {
  const size = readSize(input);
  if (size === 0) throw new Failure('usage', 'must not be 0');
  if (size % 512 !== 0) throw new Failure('usage', 'must be a multiple of 512 bytes');
  return size;
}

function atLeast(size: Bytes, least: Bytes, what: string): Bytes {
  if (size >= least) return size;
  throw new Failure(
    'usage',
    `${exactBytes(size)} is too small: ${what} must be at least ${exactBytes(least)}`,
  );
}

/** A reader of whole numbers in a range, both ends included. */
export function readCount(least: number, most: number): Reader<number> {
  return (input) => {
    if (typeof input !== 'number' || !Number.isInteger(input)) throw wrong('must be a whole number', input);
    if (input < least || input > most)
      throw new Failure('usage', `${input} is not between ${least} and ${most}`);
    return input;
  };
}

export const readCpus = readCount(1, 256);

/** A reader of one of some words; an unknown one is answered with the nearest. */
export function readChoice<const T extends string>(...choices: T[]): Reader<T> {
  return (input) => {
    const found = choices.find((choice) => choice === input);
    if (found !== undefined) return found;
    const near = typeof input === 'string' ? nearest(input, choices) : undefined;
    const one = choices.length === 1 ? `must be ${choices[0]}` : `must be one of ${choices.join(', ')}`;
    throw wrong(one, input, near === undefined ? '' : `; did you mean "${near}"?`);
  };
}

export const readDriver = readChoice('qemu', 'lima');
export const readAccelerator = readChoice('auto', 'kvm', 'hvf', 'tcg');
export const readSuite = readChoice('trixie', 'sid');

/** `on` and `off` as ZFS writes them, `true` and `false` as YAML does. */
export function readSwitch(input: unknown): boolean {
  if (input === true || input === 'on') return true;
  if (input === false || input === 'off') return false;
  throw wrong('must be on or off', input);
}

/** ZFS's own rule for pools, without spaces, so that the name is safe in shell scripts and lists. */
export const poolNamePattern = /^[A-Za-z][A-Za-z0-9_.:-]{0,63}$/;

export function readPoolName(input: unknown): string {
  if (typeof input !== 'string' || !poolNamePattern.test(input)) {
    throw wrong('must be a letter followed by letters, digits, and any of - _ . :', input);
  }
  if (/^(mirror|raidz|draid|spare|log|c\d)/.test(input)) {
    throw new Failure('usage', `"${input}" begins with a word that ZFS keeps for itself`);
  }
  return input;
}

/** What a property's value may consist of: it ends up in a shell assignment. */
export const propertyValuePattern = /^[A-Za-z0-9._:/@,+-]+$/;

/** A property's value as ZFS writes it: YAML's booleans become `on` and `off`. */
export function readPropertyValue(input: unknown): string {
  if (typeof input === 'boolean') return input ? 'on' : 'off';
  const text = typeof input === 'number' ? String(input) : input;
  if (typeof text === 'string' && propertyValuePattern.test(text)) return text;
  throw wrong('must be letters, digits, and any of . _ : / @ , + -', input);
}

/** A size in the form that ZFS reads: `200M`, and plain digits where no power of 1024 divides it. */
export function zfsSize(size: Bytes): string {
  for (const [letter, factor] of [
    ['G', GiB],
    ['M', MiB],
    ['K', KiB],
  ] as const) {
    if (size > 0 && size % factor === 0) return `${size / factor}${letter}`;
  }
  return String(size);
}

/** A failure's message and its advice in one line, for lists of problems. */
export function inOneLine({ message, hint }: Failure): string {
  return hint === undefined ? message : `${message}; ${hint}`;
}

/** How a wrong value is shown in a message. */
export function show(input: unknown): string {
  if (input === null || input === undefined) return 'empty';
  if (Array.isArray(input)) return 'a list';
  if (typeof input === 'object') return 'a map';
  const text = JSON.stringify(input);
  return text.length > 60 ? `${text.slice(0, 57)}...` : text;
}

function wrong(rule: string, input: unknown, more = ''): Failure {
  return new Failure('usage', `${rule}, not ${show(input)}${more}`);
}
