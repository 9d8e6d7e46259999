import { ZvolError } from './errors.ts';
import type { Inventory, Snapshot, Template, Volume, Zvol } from './model.ts';
import { canBeNamed, deviceName, ownIdPrefix } from './names.ts';
import type { Zfs } from './zfs.ts';

/** Datasets of zvold's own in a pool: zvols of templates that were imported, and of imports that go on. */
export const ownFolder = '.zvold';

/** The properties that make a dataset what it is to zvold. A snapshot inherits those of its volume, hence two names for ids. */
export const property = {
  volumeId: 'zfsdev:volume-id',
  snapshotId: 'zfsdev:snapshot-id',
  /** On a snapshot: the name and the id of the template that it is. */
  template: 'zfsdev:template',
  templateId: 'zfsdev:template-id',
  /** On a zvol: the id of the import that has not finished it. The next start of the daemon takes it away. */
  import: 'zfsdev:import',
} as const;

const columns = [
  ...['name', 'type', 'guid', 'creation', 'used', 'referenced', 'volsize', 'volblocksize', 'compressratio'],
  ...['refreservation', 'origin', 'userrefs', 'defer_destroy', 'clones'],
  ...[property.volumeId, property.snapshotId, property.template, property.templateId, property.import],
] as const;
type Column = (typeof columns)[number];

const placeOf = new Map(columns.map((column, index) => [column, index]));

/** The fields of a line. */
type Row = readonly string[];

const list = ['list', '-Hp', '-t', 'volume,snapshot', '-o', columns.join(',')] as const;

/**
 * All volumes, snapshots and templates of a pool, by one question to ZFS however many there are.
 * @throws ZvolError `UNAVAILABLE` if the pool is not there or can't be asked
 */
export async function takeInventory(zfs: Zfs, pool: string): Promise<Inventory> {
  const rows: Row[] = [];
  // ZFS lists the snapshots of a volume in the order in which they were taken.
  await zfs.survey(['zfs', ...list, '-r', pool], (fields) => rows.push(fields));
  return sortOut(pool, rows);
}

/**
 * One volume with its snapshots, by its name.
 * @returns undefined if there is none. @throws ZvolError `UNAVAILABLE`
 */
export async function readVolume(zfs: Zfs, pool: string, name: string): Promise<Volume | undefined> {
  if (!canBeNamed(name)) return undefined;
  const rows = await ask(zfs, '-r', `${pool}/${name}`);
  const found = rows && sortOut(pool, rows).volumes.find((volume) => volume.name === name);
  if (!found || found.origin === '') return found;
  // The template it was cloned from is a snapshot elsewhere.
  const [origin] = (await ask(zfs, found.origin)) ?? [];
  return { ...found, template: origin ? textOf(origin, property.template) : '' };
}

/** The name of the volume with an id, whether a caller gave it or ZFS. @returns undefined if there is none */
export async function findVolumeName(zfs: Zfs, pool: string, id: string): Promise<string | undefined> {
  if (id === '') return undefined;
  let found: string | undefined;
  const wanted = ['name', 'guid', property.volumeId, property.import];
  await zfs.survey(
    ['zfs', 'list', '-Hp', '-t', 'volume', '-o', wanted.join(','), '-r', pool],
    ([dataset = '', guid, given, unfinished]) => {
      const name = dataset.slice(pool.length + 1);
      const own = given === undefined || given === '-' || given === '' ? `${ownIdPrefix}${guid}` : given;
      const whole = unfinished === undefined || unfinished === '-' || unfinished === '';
      if (own === id && whole && !name.includes('/')) found = name;
    },
  );
  return found;
}

/** What is told of these datasets. @returns undefined if one of them is not there. @throws ZvolError `UNAVAILABLE` */
export async function ask(zfs: Zfs, ...words: readonly string[]): Promise<Row[] | undefined> {
  try {
    return await zfs.ask('zfs', ...list, ...words);
  } catch (error) {
    if (error instanceof ZvolError && error.code === 'NOT_FOUND') return undefined;
    throw error;
  }
}

export function textOf(row: Row, column: Column): string {
  const field = row[placeOf.get(column) ?? -1];
  return field === undefined || field === '-' ? '' : field;
}

/** Told apart by ZFS's own number where nobody gave an id: it never changes, and no other dataset has it. */
function idOf(row: Row, name: Column): string {
  return textOf(row, name) || `${ownIdPrefix}${textOf(row, 'guid')}`;
}

function numberOf(row: Row, column: Column): number {
  return Number(textOf(row, column) || 0);
}

function sortOut(pool: string, rows: readonly Row[]): Inventory {
  const snapshots = new Map<string, Snapshot[]>();
  for (const row of rows) {
    if (textOf(row, 'type') !== 'snapshot') continue;
    const name = textOf(row, 'name');
    const dataset = name.slice(0, name.indexOf('@'));
    const those = snapshots.get(dataset);
    if (those) those.push(snapshotOf(row));
    else snapshots.set(dataset, [snapshotOf(row)]);
  }
  const [whole, unfinished]: [Zvol[], Zvol[]] = [[], []];
  for (const row of rows) {
    if (textOf(row, 'type') !== 'volume') continue;
    const zvol = zvolOf(row, snapshots.get(textOf(row, 'name')) ?? []);
    (textOf(row, property.import) === '' ? whole : unfinished).push(zvol);
  }
  const templateNames = new Map(
    whole.flatMap((zvol) =>
      zvol.snapshots.map(({ fullName, template }) => [fullName, template?.name] as const),
    ),
  );
  const volumes = whole
    .filter(({ dataset }) => !dataset.slice(pool.length + 1).includes('/'))
    .map((zvol) => volumeOf(pool, zvol, templateNames.get(zvol.origin) ?? ''));
  const names = new Map(volumes.map(({ dataset, name }) => [dataset, name]));
  const passing = new Set(unfinished.map(({ dataset }) => dataset));
  return { volumes: volumes.sort(byName), templates: templatesOf(whole, names, passing), unfinished };
}

/** @param passing datasets that are no clones to anybody: those of exports. */
function templatesOf(
  zvols: readonly Zvol[],
  names: ReadonlyMap<string, string>,
  passing: ReadonlySet<string>,
): Template[] {
  const found: Template[] = [];
  for (const zvol of zvols)
    for (const snapshot of zvol.snapshots) {
      if (!snapshot.template) continue;
      found.push({
        ...snapshot.template,
        snapshot,
        sourceVolume: names.get(zvol.dataset) ?? '',
        size: snapshot.size,
        blockSize: zvol.blockSize,
        clones: snapshot.clones
          .filter((dataset) => !passing.has(dataset))
          .map((dataset) => names.get(dataset) ?? dataset)
          .sort(),
      });
    }
  return found.sort(byName);
}

function byName(a: { readonly name: string }, b: { readonly name: string }): number {
  return a.name < b.name ? -1 : 1;
}

export function volumeOf(pool: string, zvol: Zvol, template: string): Volume {
  const path = `/dev/zvol/${deviceName(zvol.dataset)}`;
  return { ...zvol, name: zvol.dataset.slice(pool.length + 1), path, template };
}

export function snapshotOf(row: Row): Snapshot {
  const fullName = textOf(row, 'name');
  const template = textOf(row, property.template);
  return {
    id: idOf(row, property.snapshotId),
    name: fullName.slice(fullName.indexOf('@') + 1),
    fullName,
    guid: textOf(row, 'guid'),
    size: numberOf(row, 'volsize'),
    used: numberOf(row, 'used'),
    referenced: numberOf(row, 'referenced'),
    created: numberOf(row, 'creation'),
    holds: numberOf(row, 'userrefs'),
    clones: textOf(row, 'clones')
      .split(',')
      .filter((name) => name !== ''),
    deferred: textOf(row, 'defer_destroy') === 'on',
    ...(template ? { template: { name: template, id: idOf(row, property.templateId) } } : {}),
  };
}

export function zvolOf(row: Row, snapshots: readonly Snapshot[]): Zvol {
  return {
    dataset: textOf(row, 'name'),
    id: idOf(row, property.volumeId),
    size: numberOf(row, 'volsize'),
    used: numberOf(row, 'used'),
    referenced: numberOf(row, 'referenced'),
    reserved: numberOf(row, 'refreservation'),
    blockSize: numberOf(row, 'volblocksize'),
    compressionRatio: numberOf(row, 'compressratio'),
    created: numberOf(row, 'creation'),
    origin: textOf(row, 'origin'),
    snapshots,
  };
}

/** A volume by its name or its id. @throws ZvolError `NOT_FOUND` */
export function findVolume({ volumes }: Inventory, word: string): Volume {
  const found = volumes.find(({ name }) => name === word) ?? volumes.find(({ id }) => id === word);
  if (found) return found;
  throw new ZvolError('NOT_FOUND', `there is no volume "${word}"`);
}

/** A snapshot of a volume by its name or its id. @throws ZvolError `NOT_FOUND` */
export function findSnapshot(volume: Volume, word: string): Snapshot {
  const { snapshots } = volume;
  const found = snapshots.find(({ name }) => name === word) ?? snapshots.find(({ id }) => id === word);
  if (found) return found;
  throw new ZvolError('NOT_FOUND', `the volume "${volume.name}" has no snapshot "${word}"`);
}

/** A template by its name or its id. @throws ZvolError `NOT_FOUND` */
export function findTemplate({ templates }: Inventory, word: string): Template {
  const found = templates.find(({ name }) => name === word) ?? templates.find(({ id }) => id === word);
  if (found) return found;
  throw new ZvolError('NOT_FOUND', `there is no template "${word}"`);
}
