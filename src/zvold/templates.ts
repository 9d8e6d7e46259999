import { discard } from './discard.ts';
import { ZvolError } from './errors.ts';
import { findSnapshot, findTemplate, ownFolder, property } from './inventory.ts';
import { deviceOf, holding, idFor, inventory, lockOf, refuseFor, withVolume, type Keeper } from './keeper.ts';
import type { Template, Volume } from './model.ts';
import { alignSize, checkId, checkName } from './names.ts';
import { idOption, idTaken, madeBefore, tellOthers, whole } from './volumes.ts';

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
    if (snapshot.deferred)
      throw new ZvolError(
        'FAILED_PRECONDITION',
        `the snapshot "${snapshot.name}" goes when nothing stands on it any more, and a template would go with it`,
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
  await holding(keeper, [lockOf.templates], async () => {
    const { id, name, snapshot, clones } = findTemplate(await inventory(keeper), word);
    refuseFor(
      `the template "${name}" can't be deleted`,
      clones.map((clone) => `"${clone}" was cloned from it`),
    );
    keeper.templates.clear();
    const [dataset = ''] = snapshot.fullName.split('@');
    if (dataset.startsWith(`${keeper.pool}/${ownFolder}/`)) await destroyImported(keeper, dataset, id);
    else {
      // Both in one call, which inherit can't: what has no name is no template.
      const none = [`${property.template}=`, `${property.templateId}=`];
      await keeper.zfs.change('zfs', 'set', ...none, snapshot.fullName);
    }
    keeper.hub.tell({ kind: 'template-deleted', id });
  });
}

/**
 * Takes the zvol of an imported template away, which is several steps of ZFS's: with the mark of what no import has finished it
 * is no template from the first on, and if the daemon ends in between, its next start does the rest.
 */
async function destroyImported({ zfs, atWork }: Keeper, dataset: string, id: string): Promise<void> {
  atWork.add(dataset);
  try {
    await zfs.change('zfs', 'set', `${property.import}=${id}`, dataset);
    try {
      await zfs.change('zfs', 'destroy', '-r', dataset);
    } catch (error) {
      // Somebody stands on it after all, so that it is the template that it was. A pool that is gone is for the next start.
      if (error instanceof ZvolError && error.code === 'FAILED_PRECONDITION')
        await zfs.change('zfs', 'inherit', property.import, dataset);
      throw error;
    }
  } finally {
    atWork.delete(dataset);
  }
}

interface NewClone {
  readonly template: string;
  readonly name: string;
  readonly size?: number | undefined;
  readonly id: string;
}

/** Makes a volume of a template. @throws ZvolError `FAILED_PRECONDITION` for a size below the template's */
export async function cloneTemplate(keeper: Keeper, wanted: NewClone): Promise<Volume> {
  const { name } = wanted;
  checkName('the volume', name, `${keeper.pool}/`);
  const { id } = wanted;
  const given = id !== '';
  if (given) checkId(id);
  // Under the lock of templates, so that the one it stands on does not go meanwhile.
  const locks = [...(given ? [lockOf.ids] : []), lockOf.templates, lockOf.volume(name)];
  let origin = '';
  const cloned = async (template: Template): Promise<Volume | undefined> => {
    const made = await cloneOf(keeper, template, wanted);
    if (made) ({ origin } = made);
    return made;
  };
  const volume = await holding(keeper, locks, async () => {
    const before = given ? await madeBefore(keeper, name, id) : undefined;
    // What is remembered costs no question; it is compared with the pool together with what came of it.
    const known = before ? undefined : keeper.templates.get(wanted.template);
    const made = known && (await cloned(known));
    if (made) return made;
    const template = findTemplate(await inventory(keeper), wanted.template);
    const { size } = sizesFor(template, wanted.size);
    if (before?.size === size && before.origin === template.snapshot.fullName) {
      await keeper.machine.awaitDevice(deviceOf(keeper, before.dataset), true);
      return before;
    }
    if (before) throw idTaken(before.name, id);
    const second = await cloned(template);
    if (second) return second;
    throw new ZvolError('ABORTED', `the template "${template.name}" was changed by somebody else meanwhile`);
  });
  await tellOthers(keeper, { origin });
  return volume;
}

/** The size of a clone, and whether that is more than the template has. */
function sizesFor(template: Template, asked: number | undefined): { size: number; grown: boolean } {
  const size = asked === undefined ? template.size : alignSize(asked, template.blockSize);
  if (size < template.size)
    throw new ZvolError(
      'FAILED_PRECONDITION',
      `the template "${template.name}" has ${template.size} bytes, and a volume of it can't have less`,
    );
  return { size, grown: size > template.size };
}

/** @returns undefined if the template is no more what it was taken for; then nothing was made */
async function cloneOf(keeper: Keeper, template: Template, wanted: NewClone): Promise<Volume | undefined> {
  const { zfs, pool } = keeper;
  const { fullName, guid } = template.snapshot;
  const dataset = `${pool}/${wanted.name}`;
  const { size, grown } = sizesFor(template, wanted.size);
  // In one call, so that there is never a clone of the wrong size.
  const words = [...idOption(wanted.id), ...(grown ? ['-o', `volsize=${size}`] : [])];
  zfs.prepareLook(pool);
  try {
    await zfs.change('zfs', 'clone', ...words, fullName, dataset);
  } catch (error) {
    if (error instanceof ZvolError && error.code === 'NOT_FOUND') return undefined;
    throw error;
  }
  const { volume, origin } = await whole(keeper, wanted.name, fullName);
  if (origin?.guid !== guid || origin.templateId !== template.id) {
    await discard(keeper, dataset);
    return undefined;
  }
  keeper.hub.tell({ kind: 'volume', volume });
  return volume;
}
