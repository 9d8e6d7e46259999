import { allCommands, kindWord, type CommandModel } from './model.ts';
import { quoted } from './quote.ts';

/** The completion script for bash: 3.2 and later, with or without the bash-completion package. */
export function bashScript(root: CommandModel, templates: readonly string[]): string {
  const commands = allCommands(root);
  return [
    '# bash completion for zfsdev; made by: zfsdev completion bash',
    '',
    foldersFunction,
    describeFunction(commands),
    valuesFunction(commands),
    candidatesFunction(root, templates),
    mainFunction,
    'complete -F _zfsdev zfsdev',
    '',
  ].join('\n');
}

// Reads folder names itself: starting zfsdev for each press of a key would be felt. Names that zfsdev would not have
// given are left out, since compgen -W reads its words as shell code.
const foldersFunction = `_zfsdev_folders() {
  local folder
  for folder in "\${ZFSDEV_HOME:-$HOME/.zfsdev}/$1"/*/; do
    [ -d "$folder" ] || continue
    folder=\${folder%/}
    folder=\${folder##*/}
    case $folder in *[!a-z0-9-]*) continue ;; esac
    printf '%s\\n' "$folder"
  done
}
`;

/** Sets what is known of one command: its sub-commands, options, options with a value, kinds of its arguments. */
function describeFunction(commands: readonly CommandModel[]): string {
  const cases = commands.map((command) => {
    const names = command.commands.flatMap((child) => child.names);
    const flags = command.options.flatMap((option) => option.flags);
    const valued = command.options.flatMap((option) => (option.value === undefined ? [] : option.flags));
    const kinds = command.args.map(kindWord);
    return `    ${quoted(command.path)})
      words=${quoted(names.join(' '))}
      options=${quoted(flags.join(' '))}
      valued=${quoted(` ${valued.join(' ')} `)}
      kinds=(${kinds.map(quoted).join(' ')})
      repeats=${command.repeats ? 'yes' : 'no'} ;;`;
  });
  const aliases = commands.flatMap((command) =>
    command.commands.flatMap((child) =>
      child.names.map((name) => `    ${quoted(`${command.path}/${name}`)}) path=${quoted(child.path)} ;;`),
    ),
  );
  return `_zfsdev_describe() {
  case $path in
${cases.join('\n')}
  esac
}

_zfsdev_descend() {
  case "$path/$1" in
${aliases.join('\n')}
    *) return 1 ;;
  esac
  _zfsdev_describe
}
`;
}

function valuesFunction(commands: readonly CommandModel[]): string {
  const cases = commands.flatMap((command) =>
    command.options.flatMap(({ flags, value }) =>
      value === undefined || value === 'none'
        ? []
        : flags.map(
            (flag) => `    ${quoted(`${command.path}/${flag}`)}) printf '%s' ${quoted(kindWord(value))} ;;`,
          ),
    ),
  );
  return `_zfsdev_value_kind() {
  case "$path/$1" in
${cases.join('\n')}
    *) printf none ;;
  esac
}
`;
}

function candidatesFunction(root: CommandModel, templates: readonly string[]): string {
  const commands = root.commands.map(({ names }) => names[0] ?? '').join(' ');
  return `_zfsdev_add() {
  local line
  while IFS= read -r line; do COMPREPLY+=("$line"); done < <(compgen "$@" -- "$cur")
}

_zfsdev_add_files() {
  local before=\${#COMPREPLY[@]}
  _zfsdev_add -f
  # compopt came with bash 4; without it a folder's name merely gets no slash.
  if ((\${#COMPREPLY[@]} > before)); then compopt -o filenames 2>/dev/null; fi
}

_zfsdev_candidates() {
  local names
  case $1 in
    words:*) names=\${1#words:}; _zfsdev_add -W "\${names//,/ }" ;;
    instance) _zfsdev_add -W "$(_zfsdev_folders instances)" ;;
    image) _zfsdev_add -W "$(_zfsdev_folders images)" ;;
    template) _zfsdev_add -W ${quoted(templates.join(' '))}" $(_zfsdev_folders instances)"; _zfsdev_add_files ;;
    command) _zfsdev_add -W ${quoted(commands)} ;;
    place)
      names=$(_zfsdev_folders instances)
      _zfsdev_add -W "\${names//[[:space:]]/: }\${names:+:}"
      if ((\${#COMPREPLY[@]} > 0)); then compopt -o nospace 2>/dev/null; fi
      _zfsdev_add_files ;;
    file) _zfsdev_add_files ;;
  esac
}
`;
}

// bash splits words at "=" and ":" (COMP_WORDBREAKS), so "--suite=sid" arrives as three words, and "NAME:PATH" too.
const mainFunction = `_zfsdev() {
  local path='' words options valued repeats cur word last index=0 literal=no i
  local -a kinds
  COMPREPLY=()
  cur=\${COMP_WORDS[COMP_CWORD]}
  _zfsdev_describe
  for ((i = 1; i < COMP_CWORD; i++)); do
    word=\${COMP_WORDS[i]}
    if [ "$literal" = no ] && [ "$word" = -- ]; then
      literal=yes
    elif [ "$literal" = no ] && [[ $valued == *" $word "* ]]; then
      last=$word
      ((i++))
      if [ "\${COMP_WORDS[i]}" = = ] && ((i < COMP_CWORD)); then ((i++)); fi
      if ((i >= COMP_CWORD)); then
        [ "$cur" = = ] && cur=''
        _zfsdev_candidates "$(_zfsdev_value_kind "$last")"
        return 0
      fi
    elif [ "$literal" = no ] && [[ $word == -* ]]; then
      :
    elif ! _zfsdev_descend "$word"; then
      ((index++))
    fi
  done
  if [ "$literal" = no ] && [[ $cur == -* ]]; then
    _zfsdev_add -W "$options"
    return 0
  fi
  # Behind NAME: stands a path in the guest, which is not asked.
  if [ "$cur" = : ] || [ "\${COMP_WORDS[COMP_CWORD - 1]}" = : ]; then return 0; fi
  if [ -n "$words" ]; then _zfsdev_add -W "$words"; fi
  if ((index < \${#kinds[@]})); then
    _zfsdev_candidates "\${kinds[index]}"
  elif [ "$repeats" = yes ] && ((\${#kinds[@]} > 0)); then
    _zfsdev_candidates "\${kinds[\${#kinds[@]} - 1]}"
  fi
  return 0
}
`;
