import type { Ended } from '../../src/zvold/command.ts';
import { property } from '../../src/zvold/inventory.ts';
import { destroyVolume, takeSnapshot, tellMade } from '../../src/zvold/programs.ts';
import type { FakeZfs } from './zfs.ts';

type Returned = Readonly<Record<string, string | number>>;

/** Does what zvold's channel programs do, and refuses any other. */
export function runProgram(zfs: FakeZfs, input: string): Ended {
  const [, quoted = '', script = ''] = /^local argv = \{(.*)\}\n([^]*)$/.exec(input) ?? [];
  const words = [...quoted.matchAll(/"([^"]*)"/g)].map(([, word = '']) =>
    Buffer.from([...word.matchAll(/\\(\d{3})/g)].map(([, byte]) => Number(byte))).toString(),
  );
  const program = programs.get(script);
  if (!program) throw new Error(`unexpected channel program: ${script}`);
  return {
    exitCode: 0,
    stdout: `${JSON.stringify({ return: program(zfs, words) })}\n`,
    stderr: '',
  };
}

const programs = new Map<string, (zfs: FakeZfs, words: readonly string[]) => Returned>([
  [takeSnapshot, taken],
  [destroyVolume, destroyed],
  [tellMade, told],
]);

const own = (zfs: FakeZfs, name: string, key: string): string =>
  zfs.value(name, key) === '-' ? '' : zfs.value(name, key);

function isVolume(zfs: FakeZfs, name: string): boolean {
  return zfs.datasets.get(name)?.type === 'volume' && own(zfs, name, property.import) === '';
}

function taken(zfs: FakeZfs, [volume = '', name = '', id = '', given = '']: readonly string[]): Returned {
  if (!isVolume(zfs, volume)) return { outcome: 'none' };
  const snapshot = `${volume}@${name}`;
  const hasId = (each: string): boolean => own(zfs, each, property.snapshotId) === given;
  if (zfs.datasets.has(snapshot)) return { outcome: 'there' };
  if (given !== '' && zfs.snapshotsOf(volume).some(hasId)) return { outcome: 'there' };
  zfs.takeSnapshot(snapshot, [[property.snapshotId, id]]);
  const number = (column: string): number => Number(zfs.value(snapshot, column));
  return {
    outcome: 'taken',
    guid: zfs.value(snapshot, 'guid'),
    creation: number('creation'),
    used: number('used'),
    referenced: number('referenced'),
    volsize: number('volsize'),
  };
}

function destroyed(zfs: FakeZfs, [volume = '']: readonly string[]): Returned {
  if (!isVolume(zfs, volume)) return { outcome: 'none' };
  const snapshots = zfs.snapshotsOf(volume);
  const isNeeded = (each: string): boolean =>
    own(zfs, each, property.template) !== '' || zfs.get(each).holds.size > 0 || zfs.clonesOf(each).length > 0;
  if (snapshots.some(isNeeded)) return { outcome: 'needed' };
  if (zfs.isOpen(volume)) return { outcome: 'busy' };
  const gone = {
    outcome: 'gone',
    id: own(zfs, volume, property.volumeId),
    guid: zfs.value(volume, 'guid'),
    origin: own(zfs, volume, 'origin'),
  };
  for (const each of [...snapshots, volume]) zfs.remove(each);
  return gone;
}

function told(zfs: FakeZfs, [volume = '']: readonly string[]): Returned {
  if (!isVolume(zfs, volume)) return { outcome: 'none' };
  const number = (column: string): number => Number(zfs.value(volume, column).replace('-', '0'));
  const origin = own(zfs, volume, 'origin');
  return {
    outcome: 'made',
    id: own(zfs, volume, property.volumeId),
    guid: zfs.value(volume, 'guid'),
    creation: number('creation'),
    used: number('used'),
    referenced: number('referenced'),
    volsize: number('volsize'),
    volblocksize: number('volblocksize'),
    compressratio: number('compressratio') * 100,
    refreservation: number('refreservation'),
    origin,
    originGuid: origin && zfs.value(origin, 'guid'),
    template: origin && own(zfs, origin, property.template),
    templateId: origin && own(zfs, origin, property.templateId),
  };
}
