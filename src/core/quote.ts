/** One word for a POSIX shell. ssh joins its arguments with spaces, so this is the one place that quotes for the guest. */
export function quote(word: string): string {
  return /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`;
}

/** A command line for the guest's shell that runs exactly these words. */
export function commandLine(argv: readonly string[]): string {
  return argv.map(quote).join(' ');
}
