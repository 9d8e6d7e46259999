# shellcheck shell=sh disable=SC2154
# Phase config of kernel-build.sh: the configuration that is asked for, the fragments over it, and a look whether all that
# was asked for is there afterwards.

# Debian's own configuration of its cloud kernel.
debian_config() {
  refresh_packages
  package=$(newest_package linux-source linux-source-)
  fetch_package "linux-config-${package#linux-source-}"
  dpkg-deb -x "$package_file" "$BUILD/fetch/root"
  file=$(find "$BUILD/fetch/root/usr/src" -name 'config.*_none_cloud-*.xz' | head -n 1)
  [ -n "$file" ] || die "Debian's package ${package_file##*/} has no configuration of a cloud kernel"
  xz -dc "$file" >"$BUILD/src/.config"
  rm -rf "$BUILD/fetch"
}

# What zfsdev itself merges in; an option that this kernel has no more is no mistake of the user's.
own_fragments() {
  if [ "$CONFIG" = debian-cloud ]; then cat "$here/kernel/debian-cloud.config"; fi
  if [ "$GUEST" = yes ]; then cat "$here/kernel/guest.config" "$here/kernel/guest-$SRCARCH.config"; fi
}

# What was asked for, in its order; it wins over zfsdev's own.
asked_fragments() {
  for file in "$BUILD"/in/fragments/*; do
    [ ! -f "$file" ] || cat "$file"
    echo
  done
  printf 'CONFIG_LOCALVERSION="%s"\n# CONFIG_LOCALVERSION_AUTO is not set\n' "$LOCALVERSION"
}

# The options of standard input, a line each and the last of its name alone: NAME VALUE (n: not set).
options() {
  sed -n -e 's/^CONFIG_\([A-Za-z0-9_]*\)=\(.*\)$/\1 \2/p' -e 's/^# CONFIG_\([A-Za-z0-9_]*\) is not set.*$/\1 n/p' |
    awk '{ name = $1; if (!(name in value)) order[++count] = name; value[name] = substr($0, length(name) + 2) }
      END { for (i = 1; i <= count; i++) print order[i], value[order[i]] }'
}

# Puts the options of $1 into the .config in place of those of the same name.
merge() {
  awk -v wanted="$1" '
    BEGIN { while ((getline line < wanted) > 0) { split(line, part, " "); replaced[part[1]] = 1 } }
    { name = "" }
    /^CONFIG_/ { name = substr($0, 8); sub(/=.*/, "", name) }
    /^# CONFIG_.* is not set/ { name = substr($2, 8) }
    name == "" || !(name in replaced)' "$BUILD/src/.config" >"$BUILD/config.merged"
  while read -r name value; do
    if [ "$value" = n ]; then echo "# CONFIG_$name is not set"; else echo "CONFIG_$name=$value"; fi
  done <"$1" >>"$BUILD/config.merged"
  mv "$BUILD/config.merged" "$BUILD/src/.config"
}

knows() {
  grep -rqE --include='Kconfig*' "^[[:space:]]*(menu)?config[[:space:]]+$1[[:space:]]*\$" "$BUILD/src"
}

# Sets $lost: the options of $1 that are not in the .config as they were asked for, with the reason.
find_lost() {
  options <"$BUILD/src/.config" >"$BUILD/options.got"
  awk 'NR == FNR { name = $1; got[name] = substr($0, length(name) + 2); next }
    { want = substr($0, length($1) + 2); have = ($1 in got) ? got[$1] : "n" }
    want != have { print $1, have, want }' "$BUILD/options.got" "$1" >"$BUILD/options.lost"
  lost=''
  while read -r name have want; do
    if knows "$name"; then reason="asked for $want, and it is $have: what it depends on is missing"
    else reason='this kernel knows no such option'; fi
    lost="$lost; CONFIG_$name ($reason)"
  done <"$BUILD/options.lost"
  lost=${lost#; }
}

# Distributions name files of theirs in their configurations; make would miss them only where it comes to certs/.
check_keys() {
  for name in SYSTEM_TRUSTED_KEYS SYSTEM_REVOCATION_KEYS SYSTEM_BLACKLIST_HASH_LIST; do
    file=$(sed -n "s/^CONFIG_$name=\"\(.*\)\"\$/\1/p" "$BUILD/src/.config")
    case $file in
      # The second one make makes itself.
      '' | certs/signing_key.*) continue ;;
      /*) key=$file ;;
      *) key=$BUILD/src/$file ;;
    esac
    [ -e "$key" ] || die "CONFIG_$name names a file that this source does not have: $file"
  done
}

compile_measure() { gcc -O2 -o "$BUILD/cost" "$BUILD/src/usr/gen_init_cpio.c" >/dev/null 2>&1; }

# Milliseconds of a processor for one compilation, always of the same file: what this place is worth as a compiler.
compile_cost() {
  # The first time the compiler comes from the disk.
  compile_measure || return 0
  # In a shell of its own, which has no other children.
  (
    compile_measure
    compile_measure
    times >"$BUILD/cost"
    echo $(($(children_cost "$BUILD/cost") / 2))
    rm -f "$BUILD/cost"
  )
}

do_config() {
  # Of a try that was cut off, a tool may be there without its content.
  if [ -e "$BUILD/src/.config" ] || [ -e "$BUILD/src/scripts/basic/fixdep" ]; then
    kernel_make mrproper || die 'make mrproper failed'
  fi
  case $CONFIG in
    # The first that is made is what makes configurations.
    defconfig | tinyconfig) kernel_make -j "$(get jobs)" "$CONFIG" || die "make $CONFIG failed" ;;
    debian-cloud) debian_config ;;
    file) cp "$BUILD/in/config" "$BUILD/src/.config" ;;
    *) die "unknown configuration: $CONFIG" ;;
  esac
  asked_fragments >"$BUILD/fragments"
  # A line that is neither an option nor a comment is a mistake, and would be dropped in silence.
  wrong=$(grep -vE '^[[:space:]]*(#.*)?$|^CONFIG_[A-Za-z0-9_]+=' "$BUILD/fragments" | head -n 1)
  [ -z "$wrong" ] || die "a fragment has a line that is no option: $wrong"
  options <"$BUILD/fragments" >"$BUILD/options.asked"
  own_fragments | options >"$BUILD/options.own"
  merge "$BUILD/options.own"
  merge "$BUILD/options.asked"
  kernel_make -j "$(get jobs)" olddefconfig || die 'make olddefconfig failed'
  find_lost "$BUILD/options.asked"
  [ -z "$lost" ] || die "options did not survive olddefconfig: $lost"
  check_keys
  check_amd_registers
  # Of its own, those that were not asked for otherwise.
  awk 'NR == FNR { asked[$1] = 1; next } !($1 in asked)' "$BUILD/options.asked" "$BUILD/options.own" >"$BUILD/options.rest"
  find_lost "$BUILD/options.rest"
  [ -z "$lost" ] || fact notice "a machine of zfsdev's may miss: $lost"
  if [ "$ZFS" != none ] && ! is_set MODULES; then
    die 'OpenZFS is a module, and this kernel takes none: CONFIG_MODULES is not set'
  fi
  kernel_make include/config/kernel.release || die 'the kernel can not tell its release'
  release=$(cat "$BUILD/src/include/config/kernel.release")
  case $release in
    *"$LOCALVERSION"*) ;;
    *) die "the kernel calls itself $release, without $LOCALVERSION" ;;
  esac
  put release "$release"
  rm -f "$BUILD"/options.* "$BUILD/fragments"
  fact release "$release"
  fact cost "$(compile_cost)"
  fact options "$(grep -c '=[ym]$' "$BUILD/src/.config")"
}
