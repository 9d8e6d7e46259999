import type { Argument, Command, Option } from 'commander';

/** What may stand in a place of the command line. */
export type Kind =
  | 'none'
  | 'file'
  /** A template's name, an instance's name, or a file. */
  | 'template'
  | 'instance'
  | 'image'
  /** A file, or NAME: for one in a guest. */
  | 'place'
  /** One of zfsdev's commands. */
  | 'command'
  | { readonly words: readonly string[] };

export interface OptionModel {
  /** `-f`, `--follow`. */
  readonly flags: readonly string[];
  readonly description: string;
  /** What follows it; undefined for a switch. */
  readonly value?: Kind;
}

/** One command as the shells need to know it. */
export interface CommandModel {
  /** Words from the program on: empty for the program itself, `image build` for a command of a group. */
  readonly path: string;
  readonly description: string;
  readonly names: readonly string[];
  readonly options: readonly OptionModel[];
  /** What its arguments are, one by one; the last one again and again if `repeats`. */
  readonly args: readonly Kind[];
  readonly repeats: boolean;
  readonly commands: readonly CommandModel[];
}

/** Values of options that commander's declaration says only in words; a test holds them against the declaration. */
export const valuesOf: Readonly<Record<string, readonly string[]>> = {
  '--suite': ['trixie', 'sid'],
  '--driver': ['qemu', 'lima'],
  '--accel': ['kvm', 'hvf', 'tcg'],
  '--flavour': ['zfs', 'base', 'cloud'],
  '--config': ['defconfig', 'tinyconfig', 'debian-cloud'],
  '--zfs': ['debian', 'none'],
};

export const shells = ['bash', 'zsh', 'fish'] as const;
export type Shell = (typeof shells)[number];

const kindOfArgument: Readonly<Record<string, Kind>> = {
  name: 'instance',
  template: 'template',
  digest: 'image',
  path: 'place',
  file: 'file',
  location: 'file',
  target: 'file',
  shell: { words: shells },
};

/** Reads commander's declaration, help and all aliases included. */
export function commandModel(command: Command, path: readonly string[] = []): CommandModel {
  const help = command.createHelp();
  const isHelp = path.length === 1 && path[0] === 'help';
  return {
    path: path.join(' '),
    description: firstLine(command.description()),
    names: [command.name(), ...command.aliases()],
    options: help.visibleOptions(command).map(optionModel),
    args: command.registeredArguments.map((argument) => (isHelp ? 'command' : argumentKind(argument))),
    repeats: command.registeredArguments.at(-1)?.variadic ?? false,
    commands: help.visibleCommands(command).map((child) => commandModel(child, [...path, child.name()])),
  };
}

/** The command and all below it. */
export function allCommands(model: CommandModel): CommandModel[] {
  return [model, ...model.commands.flatMap(allCommands)];
}

/** The word that stands for a kind in the scripts of bash and zsh. */
export function kindWord(kind: Kind): string {
  return typeof kind === 'string' ? kind : `words:${kind.words.join(',')}`;
}

function optionModel(option: Option): OptionModel {
  const flags = [option.short, option.long].filter((flag) => flag !== undefined && flag !== null);
  const description = firstLine(option.description);
  if (!option.required && !option.optional) return { flags, description };
  const words = option.argChoices ?? valuesOf[option.long ?? ''];
  const open: Kind = /[<[]file[>\]]/.test(option.flags) ? 'file' : 'none';
  return { flags, description, value: words === undefined ? open : { words } };
}

function argumentKind(argument: Argument): Kind {
  if (argument.argChoices) return { words: argument.argChoices };
  return kindOfArgument[argument.name()] ?? 'none';
}

function firstLine(text: string): string {
  return text.split('\n')[0] ?? '';
}
