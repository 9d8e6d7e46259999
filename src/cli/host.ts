import type { Command } from 'commander';
import { dryRun, json, wholeNumber, type Options, type Perform } from './options.ts';

/** Commands about the host and other tools. */
export function declareHost(program: Command, perform: Perform): void {
  program
    .command('render')
    .argument('<template>', 'a template or a YAML file')
    .description('print the Lima YAML of a template')
    .option('--name <name>', "the instance's name")
    .option('--cpus <n>', 'processors of the guest', wholeNumber)
    .option('--memory <size>', 'memory of the guest')
    .option('--disk <size>', 'virtual size of its disk')
    .option('--pool-size <size>', "size of each of the pool's files")
    .option('--lima-version <version>', 'for this one (default: fit for every Lima from 1.0 on)')
    .action((template: string, _: unknown, self: Command) => {
      const options = self.optsWithGlobals<Options>();
      return perform(options, 'quiet', async (session) =>
        (await import('../commands/render.ts')).render(session, template, options),
      );
    });
  program
    .command('doctor')
    .description('look whether this host has all that zfsdev needs')
    .option('--fix', 'install what is missing')
    .option('--yes', 'do not ask')
    .addOption(dryRun())
    .addOption(json())
    .action((_: unknown, self: Command) => {
      const options = self.optsWithGlobals<Options>();
      return perform(options, 'steps', async (session) =>
        (await import('../commands/doctor.ts')).doctor(session, options),
      );
    });
  program
    .command('completion')
    .argument('<shell>', 'bash, zsh or fish')
    .description('print a completion script for a shell')
    .action((shell: string, _: unknown, self: Command) =>
      perform(self.optsWithGlobals<Options>(), 'quiet', async (session) =>
        (await import('../commands/completion.ts')).completion(session, shell, program),
      ),
    );
}
