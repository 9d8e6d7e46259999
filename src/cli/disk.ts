import { Option, type Command } from 'commander';
import type { DiskCommandOptions, Words } from '../commands/disk-options.ts';
import type { Session } from '../commands/session.ts';
import { dryRun, json, overcommit, type Options, type Perform } from './options.ts';

const formats = ['qcow2', 'raw'] as const;

const yes = (): Option => new Option('--yes', 'without asking');
const patience = (): Option =>
  new Option('--timeout <time>', 'how long a running guest may take to let go of it (90s, 10m)').default(
    '30s',
  );
const unplugUsed = (): Option =>
  new Option('--force', 'though the guest uses it: what it has not written yet is lost');
const ofType = (description: string): Option => new Option('--type <type>', description).choices(formats);

/** Options that say what a disk is like, for one that is made or copied. */
function shaped(command: Command): Command {
  return command
    .addOption(ofType('qcow2, which can have snapshots, or raw').default('qcow2'))
    .addOption(
      new Option('--interface <bus>', 'where it is plugged in; sata and ide need a stopped machine')
        .choices(['virtio', 'scsi', 'sata', 'ide', 'none'])
        .default('virtio'),
    )
    .option('--no-discard', 'what the guest discards is not given back to the host')
    .option('--cluster-size <size>', 'of a qcow2 that is made (default: 64KiB with subclusters)')
    .addOption(overcommit())
    .addOption(dryRun());
}

/** Commands for the disks of machines, beside the one with the root file system, and for disk files. */
export function declareDisk(program: Command, perform: Perform): void {
  const disk = program.command('disk').description('disks of a machine beside its root file system');
  const verb = (name: string, description: string): Command =>
    disk.command(name).argument('<name>', 'an instance').description(description);
  const ofDisk = (name: string, description: string): Command =>
    verb(name, description).argument('<disk>', "the disk's name");
  const run = (command: Command, load: () => Promise<Run>): void =>
    void command.addOption(json()).action((...args: unknown[]) => {
      const self = args.at(-1) as Command;
      const options = self.optsWithGlobals<Options>();
      const words = self.processedArgs as string[];
      return perform(options, 'steps', async (session) => (await load())(session, words, options));
    });
  const adding = () => import('../commands/disk-add.ts');
  const plugging = () => import('../commands/disk-plug.ts');
  const writing = () => import('../commands/disk-write.ts');

  run(
    verb('list', 'all disks of a machine, which may run').alias('ls'),
    async () => (await import('../commands/disk-list.ts')).list,
  );
  run(
    shaped(ofDisk('add', 'give a machine one more disk; a running one has it at once'))
      .option('--size <size>', 'what the guest sees (1GiB); not for a file that is there')
      .option(
        '--file <file>',
        "a file of your own, made if it isn't there (default: one that goes with the machine)",
      )
      .addOption(new Option('--media <media>', 'a cdrom is only read').choices(['disk', 'cdrom']))
      .option('--readonly', 'the guest only reads it')
      .option('--backing-file <file>', 'a disk that it begins as a copy of, and stands on')
      .addOption(new Option('--backing-format <format>', 'what that is').choices(formats))
      .addOption(new Option('--compression <method>', 'of what compact writes').choices(['zlib', 'zstd']))
      .option('--passphrase-file <file>', 'encrypted by LUKS, with what this file holds'),
    async () => (await adding()).add,
  );
  run(
    shaped(
      ofDisk('import', 'make a disk of a file of the host, by copy').argument('<file>', 'raw or qcow2'),
    ).addOption(new Option('--from <format>', 'what the file is (default: by its content)').choices(formats)),
    async () => (await adding()).importFile,
  );
  run(
    ofDisk('attach', 'plug in a disk that was detached').addOption(dryRun()),
    async () => (await plugging()).attach,
  );
  run(
    ofDisk('detach', 'unplug a disk that nothing in the guest uses; the machine keeps it')
      .addOption(unplugUsed())
      .addOption(patience())
      .addOption(dryRun()),
    async () => (await plugging()).detach,
  );
  run(
    ofDisk('remove', "unplug a disk and forget it; a file in the machine's folder is deleted")
      .alias('rm')
      .addOption(yes())
      .addOption(unplugUsed())
      .addOption(patience())
      .addOption(dryRun()),
    async () => (await plugging()).remove,
  );
  run(
    ofDisk('resize', 'grow a disk, root too; disks never shrink')
      .argument('<size>', 'what the guest is to see (20GiB)')
      .addOption(overcommit())
      .addOption(dryRun()),
    async () => (await writing()).resize,
  );
  run(
    ofDisk(
      'change',
      'write a disk that is not in use anew, as raw or qcow2; verified before it replaces the old one',
    )
      .addOption(ofType('what it is to be').makeOptionMandatory())
      .addOption(overcommit())
      .addOption(dryRun()),
    async () => (await writing()).change,
  );
  run(
    disk
      .command('convert')
      .argument('<file>', 'a disk file, raw or qcow2')
      .argument('<target>', 'the file to write, verified before it takes its name')
      .description('write a disk file as raw or qcow2 that needs no other file')
      .addOption(new Option('--from <format>', 'what the file is (default: by its content)').choices(formats))
      .addOption(
        new Option('--to <format>', "what to write (default: by the target's name)").choices(formats),
      )
      .option('--overwrite', 'replace a file of that name')
      .addOption(overcommit())
      .addOption(dryRun()),
    async () => (await writing()).convert,
  );
}

type Run = (session: Session, words: Words, options: DiskCommandOptions) => Promise<void>;
