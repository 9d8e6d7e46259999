import { allCommands, kindWord, type CommandModel, type OptionModel } from './model.ts';
import { quoted } from './quote.ts';

/** The completion script for zsh: sourced, or put on fpath as `_zfsdev`. */
export function zshScript(root: CommandModel, templates: readonly string[]): string {
  const commands = allCommands(root);
  return `#compdef zfsdev
# zsh completion for zfsdev; made by: zfsdev completion zsh

_zfsdev_folders() {
  local -a found
  found=("\${ZFSDEV_HOME:-$HOME/.zfsdev}/$1"/*(N/:t))
  reply=(\${(M)found:#[a-z0-9]*})
}

_zfsdev_describe() {
  case $place in
${commands.map(describeCase).join('\n')}
  esac
}

_zfsdev_descend() {
  case "$place/$1" in
${commands.flatMap(descendCases).join('\n')}
    *) return 1 ;;
  esac
  _zfsdev_describe
}

_zfsdev_candidates() {
  local -a reply found
  case $1 in
    words:*) found=(\${(s:,:)\${1#words:}}); compadd -a found ;;
    instance) _zfsdev_folders instances; compadd -a reply ;;
    image) _zfsdev_folders images; compadd -a reply ;;
    template) _zfsdev_folders instances; compadd -- ${templates.map(quoted).join(' ')} $reply; _files -g '*.(yaml|yml)' ;;
    place) _zfsdev_folders instances; compadd -S '' -- \${^reply}:; _files ;;
    command) compadd -- ${root.commands.map(({ names }) => quoted(names[0] ?? '')).join(' ')} ;;
    file) _files ;;
  esac
}

${mainFunction}
if [ "$funcstack[1]" = _zfsdev ]; then _zfsdev "$@"; else compdef _zfsdev zfsdev; fi
`;
}

function describeCase(command: CommandModel): string {
  const names = command.commands.flatMap(({ names, description }) =>
    names.map((name) => described(name, description)),
  );
  const options = command.options.flatMap(({ flags, description }) =>
    flags.map((flag) => described(flag, description)),
  );
  const values = command.options.flatMap(valueEntries);
  return `    ${quoted(command.path)})
      names=(${names.join(' ')})
      options=(${options.join(' ')})
      values=(${values.join(' ')})
      kinds=(${command.args.map((kind) => quoted(kindWord(kind))).join(' ')})
      repeats=${command.repeats ? 'yes' : 'no'} ;;`;
}

/** Pairs of flag and kind for an associative array. */
function valueEntries({ flags, value }: OptionModel): string[] {
  return value === undefined ? [] : flags.map((flag) => `${quoted(flag)} ${quoted(kindWord(value))}`);
}

function descendCases(command: CommandModel): string[] {
  return command.commands.flatMap((child) =>
    child.names.map((name) => `    ${quoted(`${command.path}/${name}`)}) place=${quoted(child.path)} ;;`),
  );
}

/** `name:description`, as _describe takes it. */
function described(name: string, description: string): string {
  return quoted(`${name.replaceAll(':', '\\:')}:${description}`);
}

const mainFunction = `_zfsdev() {
  local place='' repeats=no word literal=no
  local -a names options kinds
  local -A values
  local -i i index=1
  _zfsdev_describe
  for ((i = 2; i < CURRENT; i++)); do
    word=\${words[i]}
    if [[ $literal = no && $word = -- ]]; then
      literal=yes
    elif [[ $literal = no && -n \${values[$word]} ]]; then
      i+=1
      if ((i >= CURRENT)); then
        _zfsdev_candidates \${values[$word]}
        return
      fi
    elif [[ $literal = no && $word = -* ]]; then
      :
    elif ! _zfsdev_descend $word; then
      index+=1
    fi
  done
  word=\${words[CURRENT]}
  if [[ $literal = no && $word = --*=* && -n \${values[\${word%%=*}]} ]]; then
    compset -P '*='
    _zfsdev_candidates \${values[\${word%%=*}]}
    return
  fi
  if [[ $literal = no && $word = -* ]]; then
    _describe -o option options
    return
  fi
  if ((\${#names})); then _describe command names; fi
  if ((index > \${#kinds})) && [[ $repeats = yes ]]; then index=\${#kinds}; fi
  if ((index <= \${#kinds} && index > 0)); then _zfsdev_candidates \${kinds[index]}; fi
}
`;
