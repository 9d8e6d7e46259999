import type { Command } from 'commander';
import {
  collect,
  dryRun,
  json,
  mirror,
  overcommit,
  timeout,
  wholeNumber,
  type Options,
  type Perform,
} from './options.ts';

/** Commands that make, start, stop and delete machines. */
export function declareLifecycle(program: Command, perform: Perform): void {
  program
    .command('up')
    .argument(
      '[template]',
      'a template (zfs-test, zfs-small, kernel-build, combined), a YAML file, or an instance',
    )
    .description('make a machine from a template and start it; start an instance that is there')
    .option('--name <name>', "the instance's name (default: the template's)")
    .option('--cpus <n>', 'processors of the guest', wholeNumber)
    .option('--memory <size>', 'memory of the guest (2GiB)')
    .option('--disk <size>', 'virtual size of its disk (4GiB)')
    .option('--pool-size <size>', "size of each of the pool's files; the disk grows with it")
    .option('--suite <suite>', 'Debian release of the image: trixie or sid')
    .option('--driver <driver>', 'qemu or lima')
    .option('--accel <accelerator>', 'kvm, hvf or tcg instead of the one found to work')
    .option('--kernel <file>', "boot this archive of zfsdev build-kernel instead of the image's kernel")
    .option('--cold', 'boot from the image instead of forking a warm machine')
    .addOption(overcommit())
    .option('--install-deps', 'install missing programs of the host first (zfsdev doctor --fix)')
    .option('--yes', 'answer yes to every question')
    .addOption(mirror())
    .addOption(timeout('10m'))
    .addOption(dryRun())
    .addOption(json())
    .action((template: string | undefined, _: unknown, command: Command) => {
      const options = command.optsWithGlobals<Options>();
      return perform(options, 'steps', async (session) =>
        (await import('../commands/up.ts')).up(session, template, options),
      );
    });

  declareRun(program, perform);

  const verbs = [
    ['start', 'start a stopped instance and wait until it is ready'],
    ['stop', 'shut an instance down'],
    ['restart', 'stop and start an instance'],
    ['delete', 'delete an instance and all its files'],
  ] as const;
  for (const [verb, description] of verbs) {
    const command = program.command(verb).argument('<name...>', 'instances').description(description);
    if (verb !== 'start')
      command.option(
        '--force',
        verb === 'delete'
          ? 'delete a running one too, without shutting down'
          : 'cut the power instead of shutting down',
      );
    if (verb !== 'delete') command.addOption(timeout(verb === 'stop' ? '3m' : '10m'));
    if (verb === 'start' || verb === 'restart') command.addOption(overcommit());
    command
      .addOption(dryRun())
      .addOption(json())
      .action((names: string[], _: unknown, self: Command) => {
        const options = self.optsWithGlobals<Options>();
        return perform(options, 'steps', async (session) =>
          (await import('../commands/lifecycle.ts'))[verb](session, names, options),
        );
      });
  }

  const words = {
    resume: 'have a machine go on that stands still, after the host was full',
    protect: 'keep an instance from being deleted',
    unprotect: 'allow an instance to be deleted again',
    adopt: 'look after Lima instances that zfsdev did not make: usage, clean, compact; delete lets go again',
  } as const;
  for (const verb of ['resume', 'protect', 'unprotect', 'adopt'] as const) {
    program
      .command(verb)
      .argument('<name...>', 'instances')
      .description(words[verb])
      .addOption(dryRun())
      .addOption(json())
      .action((names: string[], _: unknown, self: Command) => {
        const options = self.optsWithGlobals<Options>();
        return perform(options, 'steps', async (session) =>
          (await import('../commands/lifecycle.ts'))[verb](session, names),
        );
      });
  }

  program
    .command('list')
    .alias('ls')
    .description('list all instances')
    .addOption(json())
    .action((_: unknown, self: Command) =>
      perform(self.optsWithGlobals<Options>(), 'steps', async (session) =>
        (await import('../commands/list.ts')).list(session),
      ),
    );
  program
    .command('inspect')
    .argument('<name>', 'an instance')
    .description('tell all about one instance')
    .addOption(json())
    .action((name: string, _: unknown, self: Command) =>
      perform(self.optsWithGlobals<Options>(), 'steps', async (session) =>
        (await import('../commands/inspect.ts')).inspect(session, name),
      ),
    );
}

function declareRun(program: Command, perform: Perform): void {
  program
    .command('run')
    .argument('<template>', 'a template or a YAML file')
    .argument('<command...>', 'the command and its arguments, after --')
    .description(
      "run a command in a disposable machine; its exit code is zfsdev's (125 for a failure of zfsdev itself)",
    )
    .option('--count <n>', 'so many machines at once', wholeNumber)
    .option('--copy-in <src:dst>', 'copy a file or folder into the guest first', collect)
    .option('--copy-out <src:dst>', 'copy a file or folder out of the guest afterwards', collect)
    .option('--env <name=value>', 'a variable for the command', collect)
    .option('--keep-on-failure', 'leave the machine there if the command fails')
    .option('--cpus <n>', 'processors of the guest', wholeNumber)
    .option('--memory <size>', 'memory of the guest')
    .option('--disk <size>', 'virtual size of its disk')
    .option('--pool-size <size>', "size of each of the pool's files")
    .option('--suite <suite>', 'Debian release of the image: trixie or sid')
    .option('--driver <driver>', 'qemu or lima')
    .option('--accel <accelerator>', 'kvm, hvf or tcg instead of the one found to work')
    .option('--cold', 'boot from the image instead of forking a warm machine')
    .addOption(overcommit())
    .addOption(mirror())
    .addOption(dryRun())
    .addOption(timeout('1h'))
    .addOption(json())
    .action((template: string, words: string[], _: unknown, self: Command) => {
      const options = self.optsWithGlobals<Options>();
      return perform(options, 'guest', async (session) =>
        (await import('../commands/run.ts')).run(session, template, words, options),
      );
    });
}
