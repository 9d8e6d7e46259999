import { Option, type Command } from 'commander';
import { collect, json, type Options, type Perform } from './options.ts';

const workflow = `
A whole round, in a machine that runs (zfsdev up zfs-test):
  zfsdev import start zfs-test debian ./debian.qcow2       a template, of a file of this host
  zfsdev template clone zfs-test debian web --size 8GiB    a volume of it, in a moment
  zfsdev vsnap create zfs-test web fresh                   a snapshot
  zfsdev exec zfs-test -- dd if=/dev/urandom of=/dev/zvol/testpool/web bs=1M count=1
  zfsdev vsnap rollback zfs-test web fresh                 as it was
  zfsdev volume resize zfs-test web 12GiB                  larger, never smaller
  zfsdev volume export zfs-test web web.qcow2              a file of this host again
  zfsdev volume delete zfs-test web`;

type Action = 'volume' | 'vsnap' | 'template' | 'import' | 'pool';

/** One verb: its further arguments after the instance, and what it is for. */
interface Verb {
  readonly name: string;
  readonly aliases?: readonly string[];
  readonly words: readonly string[];
  readonly description: string;
  readonly options?: (command: Command) => Command;
}

const size = (description: string): Option => new Option('--size <size>', description);
const id = (): Option => new Option('--id <id>', 'its id; the same request with the same id is done once');
const blockSize = (): Option =>
  new Option('--volblocksize <size>', 'size of its blocks, 4KiB to 128KiB').default('16KiB');

const volumeVerbs: readonly Verb[] = [
  {
    name: 'create',
    words: ['<volume>'],
    description: 'create a volume, sparse unless told',
    options: (command) =>
      command
        .addOption(size('what its user sees').makeOptionMandatory())
        .addOption(blockSize())
        .option('--thick', 'reserve all of its size')
        .addOption(id()),
  },
  { name: 'list', aliases: ['ls'], words: [], description: 'list all volumes' },
  { name: 'get', words: ['<volume>'], description: 'tell all about one, by its name or id' },
  { name: 'resize', words: ['<volume>', '<size>'], description: 'make one larger' },
  { name: 'rename', words: ['<volume>', '<new-name>'], description: 'give one another name; its id stays' },
  { name: 'delete', aliases: ['rm'], words: ['<volume>'], description: 'delete one with its snapshots' },
  {
    name: 'export',
    words: ['<volume>', '<file>'],
    description:
      'write one to a file of this host: a qcow2, or raw (sparse) if the name does not end in .qcow2',
    options: (command) =>
      command
        .option('--snapshot <snapshot>', 'as it was then')
        .option('--overwrite', 'replace a file of that name'),
  },
  {
    name: 'serve',
    words: ['<socket>'],
    description: 'keep a socket on this host that leads to zvold, for programs that speak gRPC, until Ctrl-C',
  },
  {
    name: 'watch',
    words: [],
    description: 'tell every change of volumes, templates and imports, until Ctrl-C',
  },
];

const snapshotVerbs: readonly Verb[] = [
  {
    name: 'create',
    words: ['<volume>', '<snapshot>'],
    description: 'take one',
    options: (command) => command.addOption(id()),
  },
  { name: 'list', aliases: ['ls'], words: ['<volume>'], description: 'list those of a volume' },
  {
    name: 'delete',
    aliases: ['rm'],
    words: ['<volume>', '<snapshot>'],
    description: 'delete one',
    options: (command) => command.option('--deferred', 'later, if something holds it or stands on it'),
  },
  { name: 'hold', words: ['<volume>', '<snapshot>', '<tag>'], description: 'keep one from being deleted' },
  { name: 'release', words: ['<volume>', '<snapshot>', '<tag>'], description: 'let go of a hold' },
  {
    name: 'rollback',
    words: ['<volume>', '<snapshot>'],
    description: 'take a volume that nobody uses back to one; what came after is lost',
    options: (command) => command.option('--delete-newer', 'newer snapshots go, too'),
  },
];

const templateVerbs: readonly Verb[] = [
  {
    name: 'create',
    words: ['<template>', '<volume>', '<snapshot>'],
    description: "make one of a volume's snapshot",
    options: (command) => command.addOption(id()),
  },
  {
    name: 'list',
    aliases: ['ls'],
    words: [],
    description: 'list all, with the volumes that were cloned from each',
  },
  { name: 'delete', aliases: ['rm'], words: ['<template>'], description: 'delete one without clones' },
  {
    name: 'clone',
    words: ['<template>', '<volume>'],
    description: 'make a volume of one',
    options: (command) => command.addOption(size('larger than the template')).addOption(id()),
  },
];

const importVerbs: readonly Verb[] = [
  {
    name: 'start',
    words: ['<name>', '<source>'],
    description: 'import raw or qcow2: a file of this host, an http(s) address, or guest:/PATH',
    options: (command) =>
      command
        .addOption(
          new Option('--as <what>', 'what it becomes').choices(['template', 'volume']).default('template'),
        )
        .addOption(size('larger than the source'))
        .addOption(blockSize())
        .option('--sha256 <sum>', "what the source's bytes must have")
        .option('--no-wait', 'come back at once; for addresses and files of the guest')
        .addOption(id()),
  },
  {
    name: 'list',
    aliases: ['ls'],
    words: [],
    description: 'list those that go on',
    options: (command) => command.option('--all', 'those that have ended, too'),
  },
  { name: 'get', words: ['<id>'], description: 'tell how far one is' },
  { name: 'cancel', words: ['<id>'], description: 'end one; what it made goes' },
];

const poolVerbs: readonly Verb[] = [
  { name: 'status', words: [], description: 'what the pool has, and what is promised of it' },
  {
    name: 'create',
    words: ['<vdev...>'],
    description: 'create the pool, with the settings recommended for volumes',
    options: (command) =>
      command.option('--property <key=value>', 'of its file systems (again for more)', collect),
  },
];

/** Commands for the volumes in a machine's pool, which zvold manages there. */
export function declareZvol(program: Command, perform: Perform): void {
  declare(program, perform, 'volume', "volumes (zvols) in a machine's pool", volumeVerbs);
  declare(program, perform, 'vsnap', 'snapshots of volumes', snapshotVerbs);
  declare(program, perform, 'template', 'what volumes are cloned from', templateVerbs);
  declare(program, perform, 'import', 'disks that become templates or volumes', importVerbs);
  declare(program, perform, 'pool', 'the pool that volumes lie in', poolVerbs);
}

function declare(
  program: Command,
  perform: Perform,
  noun: Action,
  description: string,
  verbs: readonly Verb[],
): void {
  const group = program.command(noun).description(description).addHelpText('after', workflow);
  for (const verb of verbs) {
    const command = group
      .command(verb.name)
      .description(verb.description)
      .argument('<instance>', 'a running machine');
    for (const word of verb.words) command.argument(word);
    for (const alias of verb.aliases ?? []) command.alias(alias);
    verb.options?.(command);
    command.addOption(json()).action((...all: unknown[]) => {
      const self = all.at(-1) as Command;
      const [instance, ...words] = self.processedArgs.flat() as string[];
      const options = self.optsWithGlobals<Options>();
      return perform(
        options,
        verb.name === 'export' || verb.name === 'start' ? 'steps' : 'quiet',
        async (session) =>
          (await import('../commands/zvol.ts')).run(session, noun, verb.name, instance ?? '', words, options),
      );
    });
  }
}
