import type { Argv, Command } from './command.ts';
import type { ZvolError } from './errors.ts';
import { withWords } from './programs.ts';
import { classify } from './words.ts';

/** Milliseconds for a question about one thing, for one about everything there is, and for a change. */
const questionDeadline = 60_000;
const surveyDeadline = 600_000;
const changeDeadline = 600_000;

/** What `zfs` says where there are no channel programs at all. */
const noPrograms = /unrecognized command|invalid option|must be run as root|not supported/i;

/** What a channel program returned. */
type Told = Readonly<Record<string, unknown>>;

// They are the same for every program of a pool, so that one can be started before it is known what it will be asked.
const changing = (pool: string): Argv => ['zfs', 'program', '-j', pool, '-'];
const looking = (pool: string): Argv => ['zfs', 'program', '-n', '-j', pool, '-'];

/** The one place that calls `zfs` and `zpool`. */
export class Zfs {
  readonly #command: Command;
  readonly #confirm: () => Promise<void>;
  #programs = true;

  /**
   * @param confirm looks whether the pool is there, and throws if it isn't: then nothing is known to be missing from it, whatever
   * ZFS said.
   */
  constructor(command: Command, confirm: () => Promise<void> = () => Promise.resolve()) {
    this.#command = command;
    this.#confirm = confirm;
  }

  /** Asks; gives the fields of each line. @throws ZvolError `UNAVAILABLE` and others, never an empty answer instead */
  async ask(...argv: Argv): Promise<string[][]> {
    const rows: string[][] = [];
    await this.#read(argv, questionDeadline, (fields) => rows.push(fields));
    return rows;
  }

  /** Asks what may have thousands of lines, each of which is given as it comes. @throws ZvolError as `ask` */
  survey(argv: Argv, each: (fields: string[]) => void): Promise<void> {
    return this.#read(argv, surveyDeadline, each);
  }

  async #read(argv: Argv, deadline: number, each: (fields: string[]) => void): Promise<void> {
    let rest = '';
    const take = (text: string): void => {
      const lines = (rest + text).split('\n');
      rest = lines.pop() ?? '';
      for (const line of lines) each(line.split('\t'));
    };
    const { exitCode, stdout, stderr } = await this.#command(argv, { deadline, onOutput: take });
    if (exitCode !== 0) throw await this.#failure(stderr);
    take(stdout);
    if (rest !== '') each(rest.split('\t'));
  }

  /** Changes something. @throws ZvolError in ZFS's own words */
  async change(...argv: Argv): Promise<void> {
    const { exitCode, stderr } = await this.#command(argv, { deadline: changeDeadline });
    if (exitCode !== 0) throw await this.#failure(stderr);
  }

  /**
   * Runs a channel program: all of it happens at one moment, in which nobody else changes anything.
   * @returns what it returned; undefined where it could not be run, so that all it does has to be done another way.
   * @throws ZvolError `UNAVAILABLE` and others, for a pool that can't be asked
   */
  program(pool: string, script: string, ...words: readonly string[]): Promise<Told | undefined> {
    return this.#program(changing(pool), changeDeadline, script, words);
  }

  /** Runs a channel program that only looks, and so waits for nothing that others change. Otherwise as `program`. */
  look(pool: string, script: string, ...words: readonly string[]): Promise<Told | undefined> {
    return this.#program(looking(pool), questionDeadline, script, words);
  }

  /** Says that `look` will be called in a moment. */
  prepareLook(pool: string): void {
    if (this.#programs) this.#command.prepare?.(looking(pool));
  }

  async #program(
    argv: Argv,
    deadline: number,
    script: string,
    words: readonly string[],
  ): Promise<Told | undefined> {
    if (!this.#programs) return undefined;
    const { exitCode, stdout, stderr } = await this.#command(argv, {
      deadline,
      input: withWords(script, words),
    });
    if (exitCode === 0) {
      const { return: returned } = JSON.parse(stdout) as { return?: unknown };
      return (returned ?? {}) as Told;
    }
    if (noPrograms.test(stderr)) {
      this.#programs = false;
      return undefined;
    }
    if (stderr.includes('Channel program execution failed')) return undefined;
    throw await this.#failure(stderr);
  }

  async #failure(stderr: string): Promise<ZvolError> {
    const failure = classify(stderr);
    if (failure.code === 'NOT_FOUND') await this.#confirm();
    return failure;
  }
}
