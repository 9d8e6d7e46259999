import { Command, InvalidArgumentError, Option } from 'commander';
import type { GlobalOptions, Loudness, Session } from './commands/session.ts';

declare const ZFSDEV_VERSION: string;

/** Opens a session, runs a command with it, closes it; given by main, so that this file only declares. */
export type Perform = (
  options: GlobalOptions,
  loudness: Loudness,
  run: (session: Session) => Promise<number | void>,
) => Promise<void>;

type Options = GlobalOptions & Record<string, unknown>;

function wholeNumber(text: string): number {
  if (!/^\d+$/.test(text)) throw new InvalidArgumentError('write a whole number.');
  return Number(text);
}

const json = (): Option => new Option('--json', 'print JSON instead of text');
const dryRun = (): Option => new Option('--dry-run', 'say what would be done, and change nothing');
const timeout = (fallback: string): Option =>
  new Option('--timeout <time>', 'give up after this long (90s, 10m)').default(fallback);
const mirror = (): Option =>
  new Option('--mirror <url>', "Debian mirror for building an image (default: the host's own)");

/** Declares every command; actions import their command only when it is called. */
export function buildProgram(perform: Perform): Command {
  const program = new Command('zfsdev')
    .description('Small real machines with real ZFS, on a laptop or in CI.')
    .version(ZFSDEV_VERSION, '--version', 'print the version')
    .option('--verbose', 'print every command that is run')
    .option('--no-color', 'no colours (NO_COLOR does the same)')
    .helpOption('-h, --help', 'print help')
    // Here rather than in main: commander checks it when `exec` declares passThroughOptions.
    .enablePositionalOptions()
    .exitOverride()
    .helpCommand('help [command]', 'print help for a command')
    .showSuggestionAfterError()
    .configureHelp({ sortSubcommands: false })
    .addHelpText(
      'after',
      `
Try:
  zfsdev up zfs-test                             a machine with a mirrored pool; from the second on in about a second
  zfsdev exec zfs-test -- zpool status testpool  run a command in it
  zfsdev shell zfs-test                          a shell in it
  zfsdev delete zfs-test                         gone, with every byte
`,
    );
  declareLifecycle(program, perform);
  declareGuest(program, perform);
  declareImage(program, perform);
  declareWarm(program, perform);
  declareStorage(program, perform);
  declarePlan(program, perform);
  declareReclaim(program, perform);
  declareHost(program, perform);
  for (const command of subcommands(program)) takeGlobalOptions(command, program);
  return program;
}

function subcommands(command: Command): Command[] {
  return command.commands.flatMap((each) => [each, ...subcommands(each)]);
}

/** Global options may be written behind the verb as well, where people expect them. */
function takeGlobalOptions(command: Command, program: Command): void {
  command
    .addOption(new Option('--verbose').hideHelp())
    .addOption(new Option('--no-color').hideHelp())
    .on('option:verbose', () => program.setOptionValue('verbose', true))
    .on('option:no-color', () => program.setOptionValue('color', false));
}

function declareLifecycle(program: Command, perform: Perform): void {
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
    .option('--cold', 'boot from the image instead of forking a warm machine')
    .option('--overcommit', "go on although the worst case doesn't fit the host's disk")
    .option('--install-deps', 'install missing programs of the host first (zfsdev doctor --fix)')
    .option('--yes', 'answer yes to every question')
    .addOption(mirror())
    .addOption(timeout('10m'))
    .addOption(dryRun())
    .addOption(json())
    .action((template: string | undefined, _: unknown, command: Command) => {
      const options = command.optsWithGlobals<Options>();
      return perform(options, 'steps', async (session) =>
        (await import('./commands/up.ts')).up(session, template, options),
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
    command
      .addOption(dryRun())
      .addOption(json())
      .action((names: string[], _: unknown, self: Command) => {
        const options = self.optsWithGlobals<Options>();
        return perform(options, 'steps', async (session) =>
          (await import('./commands/lifecycle.ts'))[verb](session, names, options),
        );
      });
  }

  const words = {
    resume: 'have a machine go on that stands still, after the host was full',
    protect: 'keep an instance from being deleted',
    unprotect: 'allow an instance to be deleted again',
  } as const;
  for (const verb of ['resume', 'protect', 'unprotect'] as const) {
    program
      .command(verb)
      .argument('<name...>', 'instances')
      .description(words[verb])
      .addOption(dryRun())
      .addOption(json())
      .action((names: string[], _: unknown, self: Command) => {
        const options = self.optsWithGlobals<Options>();
        return perform(options, 'steps', async (session) =>
          (await import('./commands/lifecycle.ts'))[verb](session, names),
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
        (await import('./commands/list.ts')).list(session),
      ),
    );
  program
    .command('inspect')
    .argument('<name>', 'an instance')
    .description('tell all about one instance')
    .addOption(json())
    .action((name: string, _: unknown, self: Command) =>
      perform(self.optsWithGlobals<Options>(), 'steps', async (session) =>
        (await import('./commands/inspect.ts')).inspect(session, name),
      ),
    );
}

function declareRun(program: Command, perform: Perform): void {
  const collect = (value: string, all: string[] = []): string[] => [...all, value];
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
    .option('--overcommit', "go on although the worst case doesn't fit the host's disk")
    .addOption(mirror())
    .addOption(dryRun())
    .addOption(timeout('1h'))
    .addOption(json())
    .action((template: string, words: string[], _: unknown, self: Command) => {
      const options = self.optsWithGlobals<Options>();
      return perform(options, 'guest', async (session) =>
        (await import('./commands/run.ts')).run(session, template, words, options),
      );
    });
}

function declareGuest(program: Command, perform: Perform): void {
  program
    .command('shell')
    .argument('<name>', 'an instance')
    .description('open a shell in the guest')
    .action((name: string, _: unknown, self: Command) =>
      perform(self.optsWithGlobals<Options>(), 'guest', async (session) =>
        (await import('./commands/guest.ts')).shell(session, name),
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
        (await import('./commands/guest.ts')).exec(session, name, words, options),
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
        (await import('./commands/guest.ts')).copy(session, sources, destination),
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
        (await import('./commands/logs.ts')).logs(session, name, options),
      );
    });
}

function declareImage(program: Command, perform: Perform): void {
  const image = program.command('image').description('build and keep the base images of the built-in driver');
  image
    .command('build')
    .description('build an image, unless it is there')
    .option('--flavour <flavour>', 'zfs, or base (without ZFS)', 'zfs')
    .option('--suite <suite>', 'Debian release: trixie or sid', 'trixie')
    .option('--rebuild', 'build it again although it is there')
    .addOption(mirror())
    .addOption(dryRun())
    .addOption(json())
    .action((_: unknown, self: Command) => {
      const options = self.optsWithGlobals<Options>();
      return perform(options, 'steps', async (session) =>
        (await import('./commands/image.ts')).build(session, options),
      );
    });
  image
    .command('list')
    .alias('ls')
    .description('list all images')
    .addOption(json())
    .action((_: unknown, self: Command) =>
      perform(self.optsWithGlobals<Options>(), 'steps', async (session) =>
        (await import('./commands/image.ts')).list(session),
      ),
    );
  image
    .command('inspect')
    .argument('<digest>', 'the digest or its beginning')
    .description('tell all about one image')
    .addOption(json())
    .action((digest: string, _: unknown, self: Command) =>
      perform(self.optsWithGlobals<Options>(), 'steps', async (session) =>
        (await import('./commands/image.ts')).inspect(session, digest),
      ),
    );
  image
    .command('remove')
    .alias('rm')
    .argument('<digest>', 'the digest or its beginning')
    .description('remove an image that no instance stands on')
    .addOption(dryRun())
    .addOption(json())
    .action((digest: string, _: unknown, self: Command) =>
      perform(self.optsWithGlobals<Options>(), 'steps', async (session) =>
        (await import('./commands/image.ts')).remove(session, digest),
      ),
    );
  image
    .command('prune')
    .description('remove all images that no instance stands on, and what only they needed')
    .addOption(dryRun())
    .addOption(json())
    .action((_: unknown, self: Command) => {
      const options = self.optsWithGlobals<Options>();
      return perform(options, 'steps', async (session) =>
        (await import('./commands/image.ts')).prune(session),
      );
    });
}

function declareWarm(program: Command, perform: Perform): void {
  const warm = program.command('warm').description('saved machines that new ones are forked from');
  const specOptions = (command: Command): Command =>
    command
      .option('--cpus <n>', 'processors of the guest', wholeNumber)
      .option('--memory <size>', 'memory of the guest')
      .option('--disk <size>', 'virtual size of its disk')
      .option('--pool-size <size>', "size of each of the pool's files")
      .option('--suite <suite>', 'Debian release of the image: trixie or sid')
      .option('--accel <accelerator>', 'kvm, hvf or tcg instead of the one found to work')
      .option('--overcommit', "go on although the worst case doesn't fit the host's disk")
      .addOption(mirror())
      .addOption(timeout('10m'));
  specOptions(warm.command('key').argument('<template>', 'a template or a YAML file'))
    .description('print the key of the saved machine that fits here, for a cache in CI')
    .addOption(json())
    .action((template: string, _: unknown, self: Command) => {
      const options = self.optsWithGlobals<Options>();
      return perform(options, 'steps', async (session) =>
        (await import('./commands/warm.ts')).key(session, template, options),
      );
    });
  specOptions(warm.command('build').argument('<template>', 'a template or a YAML file'))
    .description('boot a machine and save it, unless that was done before')
    .addOption(dryRun())
    .addOption(json())
    .action((template: string, _: unknown, self: Command) => {
      const options = self.optsWithGlobals<Options>();
      return perform(options, 'steps', async (session) =>
        (await import('./commands/warm.ts')).build(session, template, options),
      );
    });
  warm
    .command('list')
    .alias('ls')
    .description('list all saved machines')
    .addOption(json())
    .action((_: unknown, self: Command) =>
      perform(self.optsWithGlobals<Options>(), 'steps', async (session) =>
        (await import('./commands/warm.ts')).list(session),
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
        (await import('./commands/warm.ts')).remove(session, keys),
      ),
    );
  warm
    .command('prune')
    .description('remove all saved machines that no instance stands on')
    .addOption(dryRun())
    .addOption(json())
    .action((_: unknown, self: Command) =>
      perform(self.optsWithGlobals<Options>(), 'steps', async (session) =>
        (await import('./commands/warm.ts')).prune(session),
      ),
    );
}

function declareStorage(program: Command, perform: Perform): void {
  program
    .command('usage')
    .argument('[name...]', 'instances (default: all)')
    .description('what disks take: virtual against actual, what the guest uses, what could be had back')
    .option('--all', 'Lima instances that zfsdev did not make as well')
    .addOption(json())
    .action((names: string[], _: unknown, self: Command) => {
      const options = self.optsWithGlobals<Options>();
      return perform(options, 'steps', async (session) =>
        (await import('./commands/usage.ts')).usage(session, names, options),
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
        (await import('./commands/plan.ts')).plan(session, templates),
      ),
    );
}

function declareReclaim(program: Command, perform: Perform): void {
  const collect = (value: string, all: string[] = []): string[] => [...all, value];
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
    .option('--drop-snapshots', 'even if they have snapshots, which are lost');
  for (const command of [trim, clean, compact]) {
    command
      .argument('<name...>', 'instances')
      .addOption(dryRun())
      .addOption(json())
      .action((names: string[], _: unknown, self: Command) => {
        const options = self.optsWithGlobals<Options>();
        return perform(options, 'steps', async (session) => {
          const verbs = await import('./commands/reclaim.ts');
          return verbs[command.name() as 'trim' | 'clean' | 'compact'](session, names, options);
        });
      });
  }
}

function declareHost(program: Command, perform: Perform): void {
  program
    .command('render')
    .argument('<template>', 'a template or a YAML file')
    .description('print the Lima YAML of a template')
    .option('--name <name>', "the instance's name")
    .option('--cpus <n>', 'processors of the guest', wholeNumber)
    .option('--memory <size>', 'memory of the guest')
    .option('--disk <size>', 'virtual size of its disk')
    .option('--pool-size <size>', "size of each of the pool's files")
    .action((template: string, _: unknown, self: Command) => {
      const options = self.optsWithGlobals<Options>();
      return perform(options, 'quiet', async (session) =>
        (await import('./commands/render.ts')).render(session, template, options),
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
        (await import('./commands/doctor.ts')).doctor(session, options),
      );
    });
  program
    .command('completion')
    .argument('<shell>', 'bash, zsh or fish')
    .description('print a completion script for a shell')
    .action((shell: string, _: unknown, self: Command) =>
      perform(self.optsWithGlobals<Options>(), 'quiet', async (session) =>
        (await import('./commands/completion.ts')).completion(session, shell, program),
      ),
    );
}
