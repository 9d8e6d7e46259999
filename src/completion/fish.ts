import { allCommands, type CommandModel, type Kind, type OptionModel } from './model.ts';
import { fishQuoted } from './quote.ts';

/** The completion script for fish. */
export function fishScript(root: CommandModel, templates: readonly string[]): string {
  const commands = allCommands(root);
  return [
    '# fish completion for zfsdev; made by: zfsdev completion fish',
    '',
    helpers(commands),
    'complete -c zfsdev -f',
    ...commands.flatMap((command) => [
      ...command.commands.flatMap((child) => subcommandLines(command, child)),
      ...command.options.map((option) => optionLine(command, option)),
      ...argumentLines(command, root, templates),
    ]),
    '',
  ].join('\n');
}

function helpers(commands: readonly CommandModel[]): string {
  const cases = commands.flatMap((command) =>
    command.commands.map(
      (child) =>
        `            case ${child.names.map((name) => fishQuoted(`${command.path}/${name}`)).join(' ')}
                set place ${fishQuoted(child.path)}
                set count 0`,
    ),
  );
  const valued = commands.flatMap(({ options }) =>
    options.flatMap(({ flags, value }) => (value === undefined ? [] : flags)),
  );
  return `function __zfsdev_folders
    set -l home ~/.zfsdev
    set -q ZFSDEV_HOME; and set home $ZFSDEV_HOME
    for folder in $home/$argv[1]/*/
        string match -r '^[a-z0-9-]+$' (basename $folder)
    end
end

# True if the command line so far is at this command, with as many arguments (any number if it isn't given).
function __zfsdev_at
    set -l place ''
    set -l count 0
    set -l skip 0
    for word in (commandline -opc)[2..-1]
        if test $skip = 1
            set skip 0
            continue
        end
        switch "$place/$word"
${cases.join('\n')}
            case '*'
                switch $word
                    case ${[...new Set(valued)].map(fishQuoted).join(' ')}
                        set skip 1
                    case '-*'
                    case '*'
                        set count (math $count + 1)
                end
        end
    end
    test "$place" = "$argv[1]"; or return 1
    test (count $argv) -lt 2; and return 0
    test $count = $argv[2]; and return 0
    test (count $argv) -gt 2; and test $count -gt $argv[2]
end
`;
}

function subcommandLines(command: CommandModel, child: CommandModel): string[] {
  return child.names.map((name) =>
    entry(`__zfsdev_at ${fishQuoted(command.path)} 0`, `-a ${fishQuoted(name)}`, child.description),
  );
}

function optionLine(command: CommandModel, { flags, description, value }: OptionModel): string {
  const names = flags.map((flag) => (flag.startsWith('--') ? `-l ${flag.slice(2)}` : `-s ${flag.slice(1)}`));
  const words =
    value === undefined
      ? []
      : ['-x', ...(typeof value === 'object' ? [`-a ${fishQuoted(value.words.join(' '))}`] : [])];
  return entry(`__zfsdev_at ${fishQuoted(command.path)}`, [...names, ...words].join(' '), description);
}

function argumentLines(command: CommandModel, root: CommandModel, templates: readonly string[]): string[] {
  return command.args.flatMap((kind, i) => {
    const further = command.repeats && i === command.args.length - 1 ? ' more' : '';
    const condition = `__zfsdev_at ${fishQuoted(command.path)} ${i}${further}`;
    return candidates(kind, root, templates).map((words) => entry(condition, words));
  });
}

function candidates(kind: Kind, root: CommandModel, templates: readonly string[]): string[] {
  if (typeof kind === 'object') return [`-a ${fishQuoted(kind.words.join(' '))}`];
  const instances = "-a '(__zfsdev_folders instances)'";
  switch (kind) {
    case 'none':
      return [];
    case 'file':
      return ['-F'];
    case 'template':
      return [`-a ${fishQuoted(templates.join(' '))}`, instances, '-F'];
    case 'instance':
      return [instances];
    case 'image':
      return ["-a '(__zfsdev_folders images)'"];
    case 'place':
      return ["-a '(__zfsdev_folders instances):'", '-F'];
    case 'command':
      return [`-a ${fishQuoted(root.commands.map(({ names }) => names[0] ?? '').join(' '))}`];
    default:
      return kind satisfies never;
  }
}

function entry(condition: string, what: string, description?: string): string {
  const words = ['complete -c zfsdev', `-n ${fishQuoted(condition)}`, what];
  if (description) words.push(`-d ${fishQuoted(description)}`);
  return words.join(' ');
}
