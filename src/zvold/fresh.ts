import { ask, snapshotOf, textOf, property, volumeOf, zvolOf } from './inventory.ts';
import type { Volume } from './model.ts';
import { ownIdPrefix } from './names.ts';
import { guidOf, tellMade, type MadeOutcome } from './programs.ts';
import type { Zfs } from './zfs.ts';

/** A volume that was just made and has no snapshots; and, of a clone, what it was cloned from. */
export interface Fresh {
  readonly volume: Volume;
  readonly origin?: {
    readonly guid: string;
    /** Empty if it is no template. */
    readonly templateId: string;
  };
}

/**
 * Reads a volume that was just made.
 * @param origin the snapshot it was cloned from, or nothing.
 * @returns undefined if one of them is not there. @throws ZvolError `UNAVAILABLE`
 */
export async function readFresh(
  zfs: Zfs,
  pool: string,
  name: string,
  origin: string,
): Promise<Fresh | undefined> {
  const dataset = `${pool}/${name}`;
  const told = (await zfs.look(pool, tellMade, dataset)) as MadeOutcome | undefined;
  if (told === undefined) return listFresh(zfs, pool, dataset, origin);
  if (told.outcome !== 'made' || told.origin !== origin) return undefined;
  const volume = volumeOf(
    pool,
    {
      dataset,
      id: told.id || `${ownIdPrefix}${guidOf(told.guid)}`,
      size: told.volsize,
      used: told.used,
      referenced: told.referenced,
      reserved: told.refreservation,
      blockSize: told.volblocksize,
      compressionRatio: told.compressratio / 100,
      created: told.creation,
      origin,
      snapshots: [],
    },
    told.template,
  );
  if (origin === '') return { volume };
  const guid = guidOf(told.originGuid);
  return {
    volume,
    origin: { guid, templateId: told.template && (told.templateId || `${ownIdPrefix}${guid}`) },
  };
}

/** The same where there are no channel programs. */
async function listFresh(
  zfs: Zfs,
  pool: string,
  dataset: string,
  origin: string,
): Promise<Fresh | undefined> {
  const rows = (await ask(zfs, ...(origin === '' ? [dataset] : [dataset, origin]))) ?? [];
  const row = rows.find((each) => textOf(each, 'name') === dataset);
  const from = rows.find((each) => textOf(each, 'name') === origin);
  if (!row || (origin !== '' && !from)) return undefined;
  const volume = volumeOf(pool, zvolOf(row, []), from ? textOf(from, property.template) : '');
  if (!from) return { volume };
  const { guid, template } = snapshotOf(from);
  return { volume, origin: { guid, templateId: template?.id ?? '' } };
}
