import { Option, type Command } from 'commander';
import { collect, dryRun, json, overcommit, type Options, type Perform } from './options.ts';

/** Commands about disk space. */
export function declareStorage(program: Command, perform: Perform): void {
  declareUsage(program, perform);
  declarePlan(program, perform);
  declareReclaim(program, perform);
}

function declareUsage(program: Command, perform: Perform): void {
  program
    .command('usage')
    .argument('[name...]', 'instances (default: all); with --diff the command and its arguments, after --')
    .description('what disks take: virtual against actual, what the guest uses, what could be had back')
    .option('--all', 'Lima instances that zfsdev did not make as well')
    .addOption(new Option('--watch', 'look again and again, until Ctrl-C').conflicts(['history', 'diff']))
    .addOption(
      new Option('--interval <time>', 'how often (default: 2s)')
        .implies({ watch: true })
        .conflicts(['history', 'diff']),
    )
    .addOption(new Option('--history', 'plot how they grew, as every usage saw it').conflicts('diff'))
    .addOption(
      new Option('--since <time>', 'no further back than this (default: 7d)')
        .implies({ history: true })
        .conflicts(['watch', 'diff']),
    )
    .addOption(
      new Option('--svg <file>', 'write the plot as an SVG; - is standard output')
        .implies({ history: true })
        .conflicts(['watch', 'diff']),
    )
    .addOption(
      new Option(
        '--diff',
        "run a command of the host, and tell what it made grow; its exit code is zfsdev's",
      ),
    )
    .addOption(json())
    .action((names: string[], _: unknown, self: Command) => {
      const options = self.optsWithGlobals<Options>();
      // As with `run`, the small exit codes are the command's.
      return perform(options, options['diff'] ? 'guest' : 'steps', async (session) => {
        if (options['watch'])
          return (await import('../commands/usage-watch.ts')).watch(session, names, options);
        if (options['history'])
          return (await import('../commands/usage-history.ts')).history(session, names, options);
        if (options['diff']) return (await import('../commands/usage-diff.ts')).diff(session, names, options);
        return (await import('../commands/usage.ts')).usage(session, names, options);
      });
    });
}

function declarePlan(program: Command, perform: Perform): void {
  program
    .command('plan')
    .argument('[template...]', 'templates or YAML files (default: zfs-test kernel-build)')
    .description("tell what machines would take in the worst case, and whether that fits; 3 if it doesn't")
    .addOption(json())
    .action((templates: string[], _: unknown, self: Command) =>
      perform(self.optsWithGlobals<Options>(), 'steps', async (session) =>
        (await import('../commands/plan.ts')).plan(session, templates),
      ),
    );
}

function declareReclaim(program: Command, perform: Perform): void {
  const trim = program.command('trim').description('have running guests give back what they no longer use');
  const clean = program
    .command('clean')
    .description("remove packages' archives, kernel sources and old logs in running guests, and trim")
    .option('--keep <kind>', 'leave packages, source or logs', collect);
  const compact = program
    .command('compact')
    .description(
      'write the disks of stopped machines anew, compressed; verified before it replaces the old one',
    )
    .option('--drop-snapshots', 'even if they have snapshots, which are lost')
    .addOption(overcommit());
  for (const command of [trim, clean, compact]) {
    command
      .argument('<name...>', 'instances')
      .addOption(dryRun())
      .addOption(json())
      .action((names: string[], _: unknown, self: Command) => {
        const options = self.optsWithGlobals<Options>();
        return perform(options, 'steps', async (session) => {
          const verbs = await import('../commands/reclaim.ts');
          return verbs[command.name() as 'trim' | 'clean' | 'compact'](session, names, options);
        });
      });
  }
}
