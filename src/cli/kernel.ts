import { Option, type Command } from 'commander';
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

/** Commands that build kernels. */
export function declareKernel(program: Command, perform: Perform): void {
  program
    .command('build-kernel')
    .description('build a Linux kernel, and OpenZFS for it, in a place that is taken away afterwards')
    .option(
      '--source <source>',
      'debian, a tarball, a folder, an http(s) address, or a git address with #REF',
      'debian',
    )
    .option('--sha256 <sum>', 'what the tarball must have')
    .option('--config <config>', 'defconfig, tinyconfig, debian-cloud, or a file', 'debian-cloud')
    .option('--fragment <file>', 'options over the configuration; may be given several times', collect)
    .option('--localversion <text>', 'what uname -r ends with', '-zfsdev')
    .option('--zfs <source>', 'OpenZFS: debian, a tarball, or none', 'debian')
    .option('--no-guest-options', "leave out the options that a machine of zfsdev's needs")
    .option('--jobs <n>', 'compilers at once (default: one for each processor)', wholeNumber)
    .option('--output <folder>', 'where the archive goes', '.')
    .option('--overwrite', 'replace an archive of that name, and its log')
    .addOption(new Option('--builder <builder>', 'where it is built').choices(['vm', 'chroot']).default('vm'))
    .addOption(new Option('--driver <driver>', 'what runs the machine').choices(['qemu', 'lima']))
    .option('--delete-after [when]', 'delete the machine once the archive is safe; =always: on failure too')
    .option('--keep', 'leave the place there, whatever happens')
    .option('--resume', 'go on from the last finished phase of a build that failed')
    .addOption(overcommit())
    .option('--install-deps', 'install missing programs of the host first (zfsdev doctor --fix)')
    .option('--yes', 'answer yes to every question')
    .addOption(mirror())
    .addOption(timeout('24h'))
    .addOption(dryRun())
    .addOption(json())
    .action((_: unknown, self: Command) => {
      const options = self.optsWithGlobals<Options>();
      // commander takes the absence of --no-guest-options for a yes; here it means: as --zfs has it.
      if (self.getOptionValueSource('guestOptions') === 'default') delete options['guestOptions'];
      return perform(options, 'steps', async (session) =>
        (await import('../commands/build-kernel.ts')).buildKernel(session, options),
      );
    });
  declareStore(program, perform);
}

function declareStore(program: Command, perform: Perform): void {
  const kernel = program.command('kernel').description('kernels that machines can boot');
  kernel
    .command('list')
    .alias('ls')
    .description('list all kernels that were taken in')
    .addOption(json())
    .action((_: unknown, self: Command) =>
      perform(self.optsWithGlobals<Options>(), 'steps', async (session) =>
        (await import('../commands/kernel.ts')).list(session),
      ),
    );
  const words = {
    add: ['<file>', 'take an archive in, as up --kernel does'],
    inspect: ['<kernel>', 'tell all about one: its digest, the beginning of that, or its release'],
    remove: ['<kernel>', 'remove one that no instance boots; its archive stays'],
  } as const;
  for (const verb of ['add', 'inspect', 'remove'] as const) {
    const [argument, description] = words[verb];
    const command = kernel.command(verb).argument(argument).description(description);
    if (verb === 'remove') command.alias('rm');
    if (verb === 'add') command.addOption(overcommit());
    if (verb !== 'inspect') command.addOption(dryRun());
    command.addOption(json()).action((word: string, _: unknown, self: Command) => {
      const options = self.optsWithGlobals<Options>();
      return perform(options, 'steps', async (session) =>
        (await import('../commands/kernel.ts'))[verb](session, word, options),
      );
    });
  }
}
