import type { Command } from 'commander';
import { bashScript } from '../completion/bash.ts';
import { fishScript } from '../completion/fish.ts';
import { commandModel, shells, type CommandModel, type Shell } from '../completion/model.ts';
import { zshScript } from '../completion/zsh.ts';
import { Failure } from '../core/errors.ts';
import { listTemplates } from '../template/load.ts';
import type { Session } from './session.ts';

const scripts: Readonly<Record<Shell, (root: CommandModel, templates: readonly string[]) => string>> = {
  bash: bashScript,
  zsh: zshScript,
  fish: fishScript,
};

/** `zfsdev completion`: prints the completion script of a shell. */
export async function completion(session: Session, shell: string, program: Command): Promise<void> {
  const known = shells.find((name) => name === shell);
  if (known === undefined) {
    throw new Failure('usage', `there is no completion for the shell ${JSON.stringify(shell)}`, {
      hint: shells.map((name) => `zfsdev completion ${name}`).join('\n'),
      data: { shells },
    });
  }
  session.write(scripts[known](commandModel(program), await listTemplates()));
}
