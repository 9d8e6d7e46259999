import type { Command } from 'commander';
import {
  dryRun,
  json,
  mirror,
  overcommit,
  timeout,
  wholeNumber,
  type Options,
  type Perform,
} from './options.ts';

/** Commands for saved machines. */
export function declareWarm(program: Command, perform: Perform): void {
  const warm = program.command('warm').description('saved machines that new ones are forked from');
  const specOptions = (command: Command): Command =>
    command
      .option('--cpus <n>', 'processors of the guest', wholeNumber)
      .option('--memory <size>', 'memory of the guest')
      .option('--disk <size>', 'virtual size of its disk')
      .option('--pool-size <size>', "size of each of the pool's files")
      .option('--suite <suite>', 'Debian release of the image: trixie or sid')
      .option('--accel <accelerator>', 'kvm, hvf or tcg instead of the one found to work')
      .addOption(overcommit())
      .addOption(mirror())
      .addOption(timeout('10m'));
  specOptions(warm.command('key').argument('<template>', 'a template or a YAML file'))
    .description('print the key of the saved machine that fits here, for a cache in CI')
    .addOption(json())
    .action((template: string, _: unknown, self: Command) => {
      const options = self.optsWithGlobals<Options>();
      return perform(options, 'steps', async (session) =>
        (await import('../commands/warm.ts')).key(session, template, options),
      );
    });
  specOptions(warm.command('build').argument('<template>', 'a template or a YAML file'))
    .description('boot a machine and save it, unless that was done before')
    .addOption(dryRun())
    .addOption(json())
    .action((template: string, _: unknown, self: Command) => {
      const options = self.optsWithGlobals<Options>();
      return perform(options, 'steps', async (session) =>
        (await import('../commands/warm.ts')).build(session, template, options),
      );
    });
  warm
    .command('list')
    .alias('ls')
    .description('list all saved machines')
    .addOption(json())
    .action((_: unknown, self: Command) =>
      perform(self.optsWithGlobals<Options>(), 'steps', async (session) =>
        (await import('../commands/warm.ts')).list(session),
      ),
    );
  warm
    .command('remove')
    .alias('rm')
    .argument('<key...>', 'the key or its beginning')
    .description('remove a saved machine that no instance stands on')
    .addOption(dryRun())
    .addOption(json())
    .action((keys: string[], _: unknown, self: Command) =>
      perform(self.optsWithGlobals<Options>(), 'steps', async (session) =>
        (await import('../commands/warm.ts')).remove(session, keys),
      ),
    );
  warm
    .command('prune')
    .description('remove all saved machines that no instance stands on')
    .addOption(dryRun())
    .addOption(json())
    .action((_: unknown, self: Command) =>
      perform(self.optsWithGlobals<Options>(), 'steps', async (session) =>
        (await import('../commands/warm.ts')).prune(session),
      ),
    );
}
