import { sharesAmong, type StorageDevice } from './storage.ts';

/**
 * The text of a guest's /etc/zfsdev/mounts, which `provision/mounts.sh` reads: what it mounts at each boot, a line for each
 * share. Undefined without shares.
 */
export function renderMounts(storage: readonly StorageDevice[] | undefined): string | undefined {
  const shares = sharesAmong(storage);
  if (shares.length === 0) return undefined;
  return shares
    .map(({ protocol, mountTag, mountAt, readonly }) =>
      [protocol, mountTag, mountAt, readonly ? 'ro' : 'rw'].map(word).join('\t'),
    )
    .map((line) => `${line}\n`)
    .join('');
}

/** A bug if it could be taken for two words, as templates are checked for it. */
function word(text: string): string {
  if (text === '' || /[\t\n]/.test(text)) throw new Error(`no word of a line: ${JSON.stringify(text)}`);
  return text;
}
