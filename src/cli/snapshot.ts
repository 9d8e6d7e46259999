import { Option, type Command } from 'commander';
import { collect, dryRun, json, overcommit, timeout, type Options, type Perform } from './options.ts';

const disk = (): Option =>
  new Option('--disk <disk>', 'of this disk only (again for more)').argParser(collect);

/** Commands for snapshots of machines. */
export function declareSnapshot(program: Command, perform: Perform): void {
  const snapshot = program.command('snapshot').description('named states of a machine to go back to');
  const declare = (verb: string, description: string): Command =>
    snapshot
      .command(verb)
      .argument('<name>', 'an instance')
      .argument('<snapshot>', "the snapshot's name")
      .description(description)
      .addOption(disk());
  const run = (command: Command, verb: 'create' | 'load' | 'delete' | 'exportTo'): Command =>
    command.addOption(json()).action((name: string, text: string, _: unknown, self: Command) => {
      const options = self.optsWithGlobals<Options>();
      return perform(options, 'steps', async (session) =>
        (await import('../commands/snapshot.ts'))[verb](session, name, text, options),
      );
    });

  run(
    declare('create', 'take one, of all disks at one moment')
      .option('--live', 'of a running machine')
      .addOption(
        new Option('--memory', 'its memory too, for which it stands still; load goes on from there').implies({
          live: true,
        }),
      )
      .option('--overwrite', 'in the place of one of this name')
      .option('--description <text>', 'what it is for')
      .addOption(overcommit())
      .addOption(dryRun()),
    'create',
  );
  snapshot
    .command('list')
    .alias('ls')
    .argument('<name>', 'an instance')
    .description('list all snapshots of a machine, which may run')
    .addOption(json())
    .action((name: string, _: unknown, self: Command) =>
      perform(self.optsWithGlobals<Options>(), 'steps', async (session) =>
        (await import('../commands/snapshot.ts')).list(session, name),
      ),
    );
  run(
    declare('load', 'go back to one; what happened since is lost')
      .option('--no-memory', 'only the disks, of one with memory')
      .option('--restart', 'stop a running machine for it, and start it again')
      .addOption(overcommit())
      .addOption(timeout('10m'))
      .addOption(dryRun()),
    'load',
  );
  run(declare('delete', 'delete one').alias('rm').addOption(dryRun()), 'delete');
  run(
    declare('export', 'write its disks to compressed qcow2 files that need no others, with checksums')
      .option('--output <file>', 'a file, or a folder that is there (default: a file in this folder)')
      .option('--overwrite', 'replace a file of that name')
      .addOption(overcommit())
      .addOption(dryRun()),
    'exportTo',
  );
}
