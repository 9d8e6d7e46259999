import { Command, Option } from 'commander';
import { declareDisk } from './cli/disk.ts';
import { declareGuest } from './cli/guest.ts';
import { declareHost } from './cli/host.ts';
import { declareImage } from './cli/image.ts';
import { declareKernel } from './cli/kernel.ts';
import { declareLifecycle } from './cli/lifecycle.ts';
import type { Perform } from './cli/options.ts';
import { declareSnapshot } from './cli/snapshot.ts';
import { declareStorage } from './cli/storage.ts';
import { declareWarm } from './cli/warm.ts';
import { declareZvol } from './cli/zvol.ts';

declare const ZFSDEV_VERSION: string;

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
  declareKernel(program, perform);
  declareSnapshot(program, perform);
  declareDisk(program, perform);
  declareStorage(program, perform);
  declareZvol(program, perform);
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
