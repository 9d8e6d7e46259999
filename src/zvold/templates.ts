import { ZvolError } from './errors.ts';
import { findSnapshot, findTemplate, ownFolder, property } from './inventory.ts';
import { idFor, inventory, lockOf, refuseFor, withVolume, type Keeper } from './keeper.ts';
import type { Template, Volume } from './model.ts';
import { alignSize, checkName } from './names.ts';
import { make } from './volumes.ts';

/** Makes a template of a volume's snapshot. The same request with the same id again gives the same template. */
export async function createTemplate(
  keeper: Keeper,
  wanted: { readonly name: string; readonly volume: string; readonly snapshot: string; readonly id: string },
): Promise<Template> {
  checkName('the template', wanted.name, '');
  const id = idFor(wanted.id);
  return withVolume(keeper, wanted.volume, [lockOf.templates], async (volume) => {
    const snapshot = findSnapshot(volume, wanted.snapshot);
    const all = await inventory(keeper);
    const present = all.templates.find((each) => each.name === wanted.name || each.id === id);
    if (present?.id === id && present.name === wanted.name && present.snapshot.fullName === snapshot.fullName)
      return present;
    if (present)
      throw new ZvolError('ALREADY_EXISTS', `there is a template "${present.name}" (${present.id})`);
    if (snapshot.template)
      throw new ZvolError(
        'ALREADY_EXISTS',
        `the snapshot is the template "${snapshot.template.name}" already`,
      );
    await keeper.zfs.change(
      'zfs',
      ...['set', `${property.template}=${wanted.name}`, `${property.templateId}=${id}`, snapshot.fullName],
    );
    const template = findTemplate(await inventory(keeper), wanted.name);
    keeper.hub.tell({ kind: 'template', template });
    return template;
  });
}

/** Deletes a template without clones. @throws ZvolError `FAILED_PRECONDITION` with the clones */
export async function deleteTemplate(keeper: Keeper, word: string): Promise<void> {
  await keeper.locks.holding([lockOf.templates], async () => {
    const { id, name, snapshot, clones } = findTemplate(await inventory(keeper), word);
    refuseFor(
      `the template "${name}" can't be deleted`,
      clones.map((clone) => `"${clone}" was cloned from it`),
    );
    const [dataset = ''] = snapshot.fullName.split('@');
    if (dataset.startsWith(`${keeper.pool}/${ownFolder}/`))
      await keeper.zfs.change('zfs', 'destroy', '-r', dataset);
    else {
      // Both in one call, which inherit can't: what has no name is no template.
      const none = [`${property.template}=`, `${property.templateId}=`];
      await keeper.zfs.change('zfs', 'set', ...none, snapshot.fullName);
    }
    keeper.hub.tell({ kind: 'template-deleted', id });
  });
}

/** Makes a volume of a template. @throws ZvolError `FAILED_PRECONDITION` for a size below the template's */
export async function cloneTemplate(
  keeper: Keeper,
  wanted: {
    readonly template: string;
    readonly name: string;
    readonly size?: number | undefined;
    readonly id: string;
  },
): Promise<Volume> {
  const { name } = wanted;
  checkName('the volume', name, `${keeper.pool}/`);
  const id = idFor(wanted.id);
  // Under the lock of templates, so that the one it stands on does not go meanwhile.
  return keeper.locks.holding([lockOf.templates], async () => {
    const template = findTemplate(await inventory(keeper), wanted.template);
    const [origin] = [template.snapshot.fullName];
    const blockSize = await blockSizeOf(keeper, origin);
    const size = wanted.size === undefined ? template.size : alignSize(wanted.size, blockSize);
    if (size < template.size)
      throw new ZvolError(
        'FAILED_PRECONDITION',
        `the template "${template.name}" has ${template.size} bytes, and a volume of it can't have less`,
      );
    const isSame = (present: Volume): boolean => present.size === size && present.origin === origin;
    return make(keeper, { name, id, given: wanted.id !== '', isSame }, () =>
      clone(keeper, origin, { name, id, size: size > template.size ? size : undefined }),
    );
  });
}

async function blockSizeOf({ zfs }: Keeper, snapshot: string): Promise<number> {
  const [[value] = []] = await zfs.ask(
    'zfs',
    'get',
    '-Hp',
    '-o',
    'value',
    'volblocksize',
    snapshot.split('@')[0] ?? '',
  );
  return Number(value);
}

async function clone(
  { zfs, pool }: Keeper,
  origin: string,
  { name, id, size }: { readonly name: string; readonly id: string; readonly size: number | undefined },
): Promise<void> {
  // In one call, so that there is never a clone of the wrong size.
  const grown = size === undefined ? [] : ['-o', `volsize=${size}`];
  const words = ['-o', `${property.volumeId}=${id}`, ...grown, origin, `${pool}/${name}`];
  await zfs.change('zfs', 'clone', ...words);
}
