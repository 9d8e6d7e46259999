/** What /etc/os-release says of a Linux system; empty texts where it says nothing. */
export interface OsRelease {
  readonly id: string;
  /** Systems that this one descends from. */
  readonly like: readonly string[];
  /** Its name for people. */
  readonly name: string;
}

/** Reads the text of /etc/os-release: shell assignments, quoted or not, in any order. */
export function parseOsRelease(text: string): OsRelease {
  const values = new Map<string, string>();
  for (const line of text.split('\n')) {
    const match = /^\s*([A-Z0-9_]+)=(.*?)\s*$/.exec(line);
    if (match?.[1] !== undefined) values.set(match[1], unquote(match[2] ?? ''));
  }
  return {
    id: values.get('ID') ?? '',
    like: (values.get('ID_LIKE') ?? '').split(/\s+/).filter((word) => word !== ''),
    name: values.get('PRETTY_NAME') ?? values.get('NAME') ?? '',
  };
}

/** True for Debian, Ubuntu and their descendants. */
export function isDebianLike(release: OsRelease): boolean {
  return [release.id, ...release.like].some((id) => id === 'debian' || id === 'ubuntu');
}

function unquote(value: string): string {
  const quoted = /^(["'])(.*)\1$/.exec(value);
  if (!quoted) return value;
  const inner = quoted[2] ?? '';
  return quoted[1] === '"' ? inner.replace(/\\([\\"$`])/g, '$1') : inner;
}
