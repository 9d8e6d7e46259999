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

/** A bug otherwise: templates are checked, and what a shell or systemd would take apart must not get past. */
function word(text: string): string {
  if (!/^[A-Za-z0-9._@+/-]+$/.test(text))
    throw new RangeError(`not safe in the guest's list of mounts: ${JSON.stringify(text)}`);
  return text;
}
