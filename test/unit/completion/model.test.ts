import { Command } from 'commander';
import { beforeAll, describe, expect, it, vi } from 'vitest';
import { completion } from '../../../src/commands/completion.ts';
import type { Session } from '../../../src/commands/session.ts';
import {
  allCommands,
  commandModel,
  shells,
  valuesOf,
  type CommandModel,
} from '../../../src/completion/model.ts';
import { fishQuoted, quoted } from '../../../src/completion/quote.ts';
import { Failure } from '../../../src/core/errors.ts';
import { buildProgram } from '../../../src/cli.ts';

let root: CommandModel;

beforeAll(() => {
  vi.stubGlobal('ZFSDEV_VERSION', '0.0.0-test');
  root = commandModel(buildProgram(() => Promise.resolve()));
});

const find = (path: string): CommandModel | undefined =>
  allCommands(root).find((command) => command.path === path);

describe('commandModel', () => {
  it('knows every command of the declaration, groups and help included', () => {
    const paths = allCommands(root).map(({ path }) => path);
    expect(paths).toEqual(
      expect.arrayContaining(['', 'up', 'delete', 'image', 'image build', 'doctor', 'completion', 'help']),
    );
    expect(find('list')?.names).toEqual(['list', 'ls']);
  });

  it('tells options that want a value from switches', () => {
    const options = find('up')?.options ?? [];
    const named = (flag: string) => options.find(({ flags }) => flags.includes(flag));
    expect(named('--suite')?.value).toEqual({ words: ['trixie', 'sid'] });
    expect(named('--memory')?.value).toBe('none');
    expect(named('--yes')?.value).toBeUndefined();
  });

  it('knows what arguments are', () => {
    expect(find('up')?.args).toEqual(['template']);
    expect(find('delete')).toMatchObject({ args: ['instance'], repeats: true });
    expect(find('exec')).toMatchObject({ args: ['instance', 'none'], repeats: true });
    expect(find('copy')).toMatchObject({ args: ['place'], repeats: true });
    expect(find('image remove')?.args).toEqual(['image']);
    expect(find('completion')?.args).toEqual([{ words: shells }]);
    expect(find('help')?.args).toEqual(['command']);
  });

  it('has values only for options that are declared, and as they are described', () => {
    const declared = allCommands(root).flatMap(({ options }) => options);
    for (const [flag, words] of Object.entries(valuesOf)) {
      const found = declared.filter(({ flags }) => flags.includes(flag));
      expect(found, flag).not.toHaveLength(0);
      for (const word of words)
        expect(
          found.some(({ description }) => description.includes(word)),
          `${flag} ${word}`,
        ).toBe(true);
    }
  });

  it("takes commander's own choices where there are any", () => {
    const command = new Command('x').addOption(
      new Command('y').createOption('--color <when>').choices(['always', 'never']),
    );
    expect(commandModel(command).options[0]?.value).toEqual({ words: ['always', 'never'] });
  });
});

describe('quoting', () => {
  it('keeps words from being read as code', () => {
    expect(quoted(`it's $HOME`)).toBe(`'it'\\''s $HOME'`);
    expect(fishQuoted(`it's a \\ backslash`)).toBe(`'it\\'s a \\\\ backslash'`);
  });
});

describe('zfsdev completion', () => {
  it.each(shells)('prints a script for %s that names every template and command', async (shell) => {
    let script = '';
    const session = { write: (text: string) => void (script += text) } as unknown as Session;
    await completion(
      session,
      shell,
      buildProgram(() => Promise.resolve()),
    );
    for (const word of ['zfs-test', 'kernel-build', 'unprotect', 'pool-size']) expect(script).toContain(word);
  });

  it('refuses another shell and names the three', async () => {
    const attempt = completion({} as Session, 'tcsh', new Command());
    await expect(attempt).rejects.toThrow(Failure);
    await expect(attempt).rejects.toMatchObject({ exitCode: 2, data: { shells: ['bash', 'zsh', 'fish'] } });
  });
});
