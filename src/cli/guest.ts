import type { Command } from 'commander';
import { dryRun, json, type Options, type Perform } from './options.ts';

/** Commands that reach into a guest. */
export function declareGuest(program: Command, perform: Perform): void {
  program
    .command('shell')
    .argument('<name>', 'an instance')
    .description('open a shell in the guest')
    .action((name: string, _: unknown, self: Command) =>
      perform(self.optsWithGlobals<Options>(), 'guest', async (session) =>
        (await import('../commands/guest.ts')).shell(session, name),
      ),
    );
  program
    .command('exec')
    .argument('<name>', 'an instance')
    .argument('<command...>', 'the command and its arguments, after --')
    .description("run a command in the guest; its exit code is zfsdev's (125 for a failure of zfsdev itself)")
    .option('-t, --tty', 'give it a terminal')
    .passThroughOptions()
    .action((name: string, words: string[], _: unknown, self: Command) => {
      const options = self.optsWithGlobals<Options>();
      return perform(options, 'guest', async (session) =>
        (await import('../commands/guest.ts')).exec(session, name, words, options),
      );
    });
  program
    .command('copy')
    .alias('cp')
    // One variadic argument, since commander takes a variadic one only at the end.
    .argument('<path...>', 'files or folders, the destination last; NAME:PATH for those in a guest')
    .description('copy files or folders into a guest or out of it')
    .addOption(dryRun())
    .addOption(json())
    .action((paths: string[], _: unknown, self: Command) => {
      const options = self.optsWithGlobals<Options>();
      const [sources, destination = ''] = [paths.slice(0, -1), paths.at(-1)];
      if (sources.length === 0) self.error('error: copy takes a source and a destination');
      return perform(options, 'steps', async (session) =>
        (await import('../commands/guest.ts')).copy(session, sources, destination),
      );
    });
  program
    .command('logs')
    .argument('<name>', 'an instance')
    .description("print the machine's console")
    .option('-f, --follow', 'go on printing until Ctrl-C')
    .action((name: string, _: unknown, self: Command) => {
      const options = self.optsWithGlobals<Options>();
      return perform(options, 'quiet', async (session) =>
        (await import('../commands/logs.ts')).logs(session, name, options),
      );
    });
}
