import type { Command } from 'commander';
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
    .argument('[name...]', 'instances (default: all)')
    .description('what disks take: virtual against actual, what the guest uses, what could be had back')
    .option('--all', 'Lima instances that zfsdev did not make as well')
    .addOption(json())
    .action((names: string[], _: unknown, self: Command) => {
      const options = self.optsWithGlobals<Options>();
      return perform(options, 'steps', async (session) =>
        (await import('../commands/usage.ts')).usage(session, names, options),
      );
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
