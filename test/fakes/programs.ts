import { chmod, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { hasCode } from '../../src/core/errors.ts';

/** One call that a test expects, and what the program plays then. */
export interface ExpectedCall {
  /** Each word as it must be, or what must match in it (without flags). */
  readonly argv: readonly (string | RegExp)[];
  /** Variables that must have these values, or must not be there. */
  readonly env?: Readonly<Record<string, string | undefined>>;
  /** Files that the call leaves behind, folders included: their text, or the file they copy; null takes a path away. */
  readonly leaves?: Readonly<Record<string, string | { readonly copyOf: string } | null>>;
  /** It says and leaves all it has to, and then never ends. */
  readonly hangs?: boolean;
  readonly stdout?: string;
  readonly stderr?: string;
  readonly exitCode?: number;
  /** How often it may come; without it, any number of times. */
  readonly times?: number;
  /** Absent programs that are on PATH after this call. */
  readonly brings?: readonly string[];
}

export interface FakeProgram {
  readonly calls: readonly ExpectedCall[];
  /** Not on PATH until a call of another one brings it. */
  readonly absent?: boolean;
}

export interface FakePrograms {
  /** A PATH that holds these programs and nothing else, so that nothing falls through to real ones. */
  readonly path: string;
  /** All calls so far, program first, in their order. */
  calls(): Promise<string[][]>;
  /** Fails if any program was called in a way that the test didn't expect. */
  verify(): Promise<void>;
  remove(): Promise<void>;
  /** Both, the second whatever comes of the first. */
  settle(): Promise<void>;
}

/** Puts executables on a PATH of their own that play what the test tells, and refuse every other call. */
export async function fakePrograms(programs: Readonly<Record<string, FakeProgram>>): Promise<FakePrograms> {
  const path = await mkdtemp(join(tmpdir(), 'zfsdev-fakes-'));
  for (const [name, { calls, absent }] of Object.entries(programs)) {
    const file = join(path, absent ? `.absent-${name}` : name);
    await writeFile(file, script(name, calls));
    await chmod(file, 0o755);
  }
  const lines = async (file: string): Promise<string[][]> => {
    try {
      const text = await readFile(join(path, file), 'utf8');
      return text
        .trimEnd()
        .split('\n')
        .map((line) => JSON.parse(line) as string[]);
    } catch (error) {
      if (hasCode(error, 'ENOENT')) return [];
      throw error;
    }
  };
  const verify = async (): Promise<void> => {
    const unexpected = await lines('.unexpected');
    if (unexpected.length > 0)
      throw new Error(`unexpected calls:\n${unexpected.map((argv) => argv.join(' ')).join('\n')}`);
  };
  const remove = (): Promise<void> => rm(path, { recursive: true, force: true });
  return { path, calls: () => lines('.calls'), verify, remove, settle: () => verify().finally(remove) };
}

/** The fakes of one test, of which there is one set at a time. */
export class Stage {
  #present: FakePrograms | undefined;

  /** Puts these on a PATH of their own; those before must have been called as expected. */
  async play(programs: Readonly<Record<string, FakeProgram>>): Promise<FakePrograms> {
    await this.settle();
    this.#present = await fakePrograms(programs);
    return this.#present;
  }

  get present(): FakePrograms | undefined {
    return this.#present;
  }

  async settle(): Promise<void> {
    const fakes = this.#present;
    this.#present = undefined;
    await fakes?.settle();
  }
}

function script(name: string, calls: readonly ExpectedCall[]): string {
  const expected = calls.map(({ argv, env = {}, ...call }) => ({
    ...call,
    argv: argv.map((word) => (typeof word === 'string' ? word : { matches: word.source })),
    // JSON has no undefined.
    env: Object.entries(env).map(([key, value]) => [key, value ?? null]),
  }));
  return `#!${process.execPath}
const fs = require('node:fs');
const { dirname, join } = require('node:path');
const folder = __dirname;
const argv = process.argv.slice(2);
const name = ${JSON.stringify(name)};
const record = (file) => fs.appendFileSync(join(folder, file), JSON.stringify([name, ...argv]) + '\\n');
const before = fs.existsSync(join(folder, '.calls')) ? fs.readFileSync(join(folder, '.calls'), 'utf8').split('\\n') : [];
const same = before.filter((line) => line === JSON.stringify([name, ...argv])).length;
record('.calls');
let seen = 0;
const fits = (word, i) => (word.matches === undefined ? word === argv[i] : new RegExp(word.matches).test(argv[i]));
const call = ${JSON.stringify(expected)}.find((expected) => {
  if (expected.argv.length !== argv.length || !expected.argv.every(fits)) return false;
  if (!expected.env.every(([key, value]) => (process.env[key] ?? null) === value)) return false;
  seen += expected.times ?? Infinity;
  return same < seen;
});
if (!call) {
  record('.unexpected');
  process.stderr.write('fake ' + name + ': unexpected call: ' + argv.join(' ') + '\\n');
  process.exitCode = 99;
} else {
  for (const [path, content] of Object.entries(call.leaves ?? {})) {
    if (content === null) fs.rmSync(path, { recursive: true, force: true });
    else fs.mkdirSync(dirname(path), { recursive: true });
    if (typeof content === 'string') fs.writeFileSync(path, content);
    else if (content !== null) fs.copyFileSync(content.copyOf, path);
  }
  for (const other of call.brings ?? []) fs.renameSync(join(folder, '.absent-' + other), join(folder, other));
  process.stdout.write(call.stdout ?? '');
  process.stderr.write(call.stderr ?? '');
  process.exitCode = call.exitCode ?? 0;
  if (call.hangs) setInterval(() => undefined, 1e6);
}
`;
}
