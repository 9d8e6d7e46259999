import { sharesAmong, type StorageDevice } from '../template/storage.ts';

/**
 * What the guest is told of its shares: a line each of protocol, tag, mount point and `ro` or `rw`, with tabs between. None of it
 * has a space, as templates are checked.
 */
export function renderMounts(storage: readonly StorageDevice[] | undefined): string {
  return sharesAmong(storage)
    .map((share) => [share.protocol, share.mountTag, share.mountAt, share.readonly ? 'ro' : 'rw'])
    .map((fields) => {
      const unsafe = fields.find((field) => !/^[A-Za-z0-9._@+/-]+$/.test(field));
      // Specs are checked where they are read; what a shell or systemd would take apart must not get past.
      if (unsafe !== undefined)
        throw new RangeError(`not safe in the guest's list of mounts: ${JSON.stringify(unsafe)}`);
      return `${fields.join('\t')}\n`;
    })
    .join('');
}
