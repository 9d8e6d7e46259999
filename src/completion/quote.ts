/** A word in single quotes for bash and zsh; what comes from declarations must not be read as code. */
export function quoted(word: string): string {
  return `'${word.replaceAll("'", `'\\''`)}'`;
}

/** The same for fish, where a backslash counts within single quotes. */
export function fishQuoted(word: string): string {
  return `'${word.replace(/[\\']/g, '\\$&')}'`;
}
