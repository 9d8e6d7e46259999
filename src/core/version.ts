/** The first dotted number in a program's words about its version (`7.2.22`), or undefined. */
export function versionIn(text: string): string | undefined {
  return /\d+(?:\.\d+)+/.exec(text)?.[0];
}

/** True if a dotted version is the floor or later; parts that are missing count as 0. */
export function isAtLeast(version: string, floor: string): boolean {
  const [have, want] = [version, floor].map((text) =>
    text.split('.').map((part) => Number.parseInt(part, 10) || 0),
  );
  for (let i = 0; i < Math.max(have?.length ?? 0, want?.length ?? 0); i += 1) {
    const difference = (have?.[i] ?? 0) - (want?.[i] ?? 0);
    if (difference !== 0) return difference > 0;
  }
  return true;
}
