import type { Inventory, Snapshot, Template, Volume, Zvol } from './model.ts';
import { ZvolError } from './errors.ts';
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
  /** On a zvol: the id of the import that has not finished it. */
  import: 'zfsdev:import',
} as const;

const columns = [
  ...['name', 'type', 'guid', 'creation', 'used', 'referenced', 'volsize', 'volblocksize', 'compressratio'],
  ...['refreservation', 'origin', 'userrefs', 'defer_destroy', 'clones'],
  ...[property.volumeId, property.snapshotId, property.template, property.templateId, property.import],
] as const;

type Row = ReadonlyMap<string, string>;

/**
 * All volumes, snapshots and templates of a pool, by one question to ZFS however many there are.
 * @throws ZvolError `UNAVAILABLE` if the pool is not there or can't be asked
 */
export async function takeInventory(zfs: Zfs, pool: string): Promise<Inventory> {
  const lines = await zfs.ask(
    'zfs',
    ...['list', '-Hp', '-r', '-t', 'volume,snapshot', '-o', columns.join(','), '-s', 'createtxg', pool],
  );
  return sortOut(pool, lines.map(rowOf));
}

/**
 * One volume with its snapshots, by its name.
 * @returns undefined if there is none. @throws ZvolError `UNAVAILABLE`
 */
export async function readVolume(zfs: Zfs, pool: string, name: string): Promise<Volume | undefined> {
  if (!/^[A-Za-z0-9][A-Za-z0-9_.:-]*$/.test(name)) return undefined;
  const list = (more: readonly string[]): Promise<string[][]> =>
    zfs.ask('zfs', ...['list', '-Hp', '-o', columns.join(','), ...more]);
  let lines: string[][];
  try {
    lines = await list(['-r', '-t', 'volume,snapshot', '-s', 'createtxg', `${pool}/${name}`]);
  } catch (error) {
    if (error instanceof ZvolError && error.code === 'NOT_FOUND') return undefined;
    throw error;
  }
  const rows = lines.map(rowOf);
  const { volumes } = sortOut(pool, rows);
  const found = volumes.find((volume) => volume.name === name);
  if (!found || found.origin === '') return found;
  // The template it was cloned from is a snapshot elsewhere.
  const [origin] = (await list(['-t', 'snapshot', found.origin])).map(rowOf);
  return { ...found, template: origin?.get(property.template) ?? '' };
}

function rowOf(fields: readonly string[]): Row {
  return new Map(
    columns.map((column, index) => [column, fields[index] === '-' ? '' : (fields[index] ?? '')]),
  );
}

/** Told apart by ZFS's own number where nobody gave an id: it never changes, and no other dataset has it. */
const idOf = (row: Row, name: string): string => row.get(name) || `guid-${row.get('guid') ?? ''}`;

const numberOf = (row: Row, column: (typeof columns)[number]): number => Number(row.get(column) || 0);

function sortOut(pool: string, rows: readonly Row[]): Inventory {
  const snapshots = new Map<string, Snapshot[]>();
  for (const row of rows) {
    if (row.get('type') !== 'snapshot') continue;
    const [dataset = ''] = (row.get('name') ?? '').split('@');
    snapshots.set(dataset, [...(snapshots.get(dataset) ?? []), snapshotOf(row)]);
  }
  const zvols = rows
    .filter((row) => row.get('type') === 'volume')
    .map((row) => ({ row, zvol: zvolOf(row, snapshots.get(row.get('name') ?? '') ?? []) }));
  const inOwn = ({ dataset }: Zvol): boolean => dataset.startsWith(`${pool}/${ownFolder}/`);
  const unfinished = zvols.filter(({ row }) => row.get(property.import) !== '').map(({ zvol }) => zvol);
  const whole = zvols.filter(({ row }) => row.get(property.import) === '').map(({ zvol }) => zvol);
  const named = (zvol: Zvol): boolean =>
    !inOwn(zvol) && zvol.dataset.slice(pool.length + 1).split('/').length === 1;
  const templateSnapshots = new Map(
    whole.flatMap((zvol) =>
      zvol.snapshots.map((snapshot) => [snapshot.fullName, { zvol, snapshot }] as const),
    ),
  );
  const volumes = whole.filter(named).map((zvol): Volume => ({
    ...zvol,
    name: zvol.dataset.slice(pool.length + 1),
    path: `/dev/zvol/${zvol.dataset}`,
    template: templateSnapshots.get(zvol.origin)?.snapshot.template?.name ?? '',
  }));
  const byDataset = new Map(volumes.map(({ dataset, name }) => [dataset, name]));
  const templates = [...templateSnapshots.values()].flatMap(({ zvol, snapshot }): Template[] =>
    snapshot.template
      ? [
          {
            ...snapshot.template,
            snapshot,
            sourceVolume: byDataset.get(zvol.dataset) ?? '',
            size: zvol.size,
            clones: snapshot.clones.map((dataset) => byDataset.get(dataset) ?? dataset).sort(),
          },
        ]
      : [],
  );
  return { volumes: volumes.sort(byName), templates: templates.sort(byName), unfinished };
}

function byName(a: { readonly name: string }, b: { readonly name: string }): number {
  return a.name < b.name ? -1 : 1;
}

function snapshotOf(row: Row): Snapshot {
  const fullName = row.get('name') ?? '';
  const template = row.get(property.template);
  return {
    id: idOf(row, property.snapshotId),
    name: fullName.slice(fullName.indexOf('@') + 1),
    fullName,
    used: numberOf(row, 'used'),
    referenced: numberOf(row, 'referenced'),
    created: numberOf(row, 'creation'),
    holds: numberOf(row, 'userrefs'),
    clones: (row.get('clones') ?? '').split(',').filter((name) => name !== ''),
    deferred: row.get('defer_destroy') === 'on',
    ...(template ? { template: { name: template, id: idOf(row, property.templateId) } } : {}),
  };
}

function zvolOf(row: Row, snapshots: readonly Snapshot[]): Zvol {
  return {
    dataset: row.get('name') ?? '',
    id: idOf(row, property.volumeId),
    size: numberOf(row, 'volsize'),
    used: numberOf(row, 'used'),
    referenced: numberOf(row, 'referenced'),
    reserved: numberOf(row, 'refreservation'),
    blockSize: numberOf(row, 'volblocksize'),
    compressionRatio: numberOf(row, 'compressratio'),
    created: numberOf(row, 'creation'),
    origin: row.get('origin') ?? '',
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
