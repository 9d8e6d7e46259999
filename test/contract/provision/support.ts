import { spawnSync } from 'node:child_process';
import { constants } from 'node:fs';
import { access, mkdtemp, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { Stage, type FakeProgram } from '../../fakes/programs.ts';

/** Where the scripts lie. */
export const provision = resolve(import.meta.dirname, '../../../provision');

/** What a script of `provision/` said and how it ended. */
export interface Ended {
  readonly exitCode: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/**
 * Runs scripts of `provision/` under the shell that Debian and Ubuntu have, with nothing on PATH but what a test plays and
 * a few real programs that only touch the test's own folder.
 */
export class ScriptHouse {
  readonly root: string;
  readonly #stage = new Stage();

  private constructor(root: string) {
    this.root = root;
  }

  static async open(): Promise<ScriptHouse> {
    return new ScriptHouse(await mkdtemp(join(tmpdir(), 'zfsdev-script-')));
  }

  /** A path in the test's own folder. */
  at(...parts: readonly string[]): string {
    return join(this.root, ...parts);
  }

  /** Puts these on PATH in the place of those before. */
  async play(fakes: Readonly<Record<string, FakeProgram>>, real: readonly string[]): Promise<void> {
    const { path } = await this.#stage.play(fakes);
    for (const program of real) await symlink(await whereIs(program), join(path, program));
  }

  /**
   * Runs a script of `provision/`. @param replaced texts of it that must be there and lead out of the test's folder, with
   * what stands for them.
   */
  async run(
    file: string,
    args: readonly string[],
    env: Readonly<Record<string, string>>,
    replaced: Readonly<Record<string, string>> = {},
  ): Promise<Ended> {
    let text = await readFile(join(provision, file), 'utf8');
    for (const [from, to] of Object.entries(replaced)) {
      if (text.split(from).length !== 2) throw new Error(`${file} has to have once: ${from}`);
      text = text.replace(from, to);
    }
    return this.runText(file, text, args, env);
  }

  /** Runs a script that is given as text; `name` is its file's. */
  async runText(
    name: string,
    text: string,
    args: readonly string[] = [],
    env: Readonly<Record<string, string>> = {},
  ): Promise<Ended> {
    const script = this.at(name);
    await writeFile(script, text);
    const { status, stdout, stderr, error } = spawnSync('/bin/dash', [script, ...args], {
      encoding: 'utf8',
      timeout: 30_000,
      env: { PATH: this.#stage.present?.path, LC_ALL: 'C', ...env },
    });
    if (error) throw error;
    return { exitCode: status, stdout, stderr };
  }

  /** The calls so far of what is played, each as one line. */
  async calls(): Promise<string[]> {
    return ((await this.#stage.present?.calls()) ?? []).map((argv) => argv.join(' '));
  }

  /** Fails if there was a call that no test expected. */
  async close(): Promise<void> {
    try {
      await this.#stage.settle();
    } finally {
      await rm(this.root, { recursive: true, force: true });
    }
  }
}

async function whereIs(program: string): Promise<string> {
  for (const folder of ['/usr/bin', '/bin']) {
    const path = join(folder, program);
    if (
      await access(path, constants.X_OK).then(
        () => true,
        () => false,
      )
    )
      return path;
  }
  throw new Error(`this host has no ${program}`);
}
