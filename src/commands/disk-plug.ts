import { formatBytes } from '../core/bytes.ts';
import { Failure } from '../core/errors.ts';
import { parseName, type InstanceName } from '../core/names.ts';
import { parseDuration } from '../host/deadline.ts';
import { attachDisk, detachDisk, type Plugged, type Unplug } from '../storage/disk-attach.ts';
import { removeDisk, type Loss } from '../storage/disk-remove.ts';
import { confirm } from '../ui/confirm.ts';
import { planned, type DiskCommandOptions, type Words } from './disk-options.ts';
import { canAsk, type Session } from './session.ts';

/** `zfsdev disk attach`. */
export async function attach(session: Session, [instance = '', name = '']: Words): Promise<void> {
  const machine = parseName(instance);
  if (await planned(session, machine, `plug the disk "${name}" into ${machine}`)) return;
  await tellPlugged(session, machine, 'attached', await attachDisk(session.ctx, machine, name));
}

/** `zfsdev disk detach`. */
export async function detach(
  session: Session,
  [instance = '', name = '']: Words,
  options: DiskCommandOptions,
): Promise<void> {
  const machine = parseName(instance);
  const unplug = unplugOf(options);
  if (await planned(session, machine, `unplug the disk "${name}" from ${machine}`)) return;
  await tellPlugged(session, machine, 'detached', await detachDisk(session.ctx, machine, name, unplug));
}

function unplugOf({ timeout = '30s', force = false }: DiskCommandOptions): Unplug {
  return { patience: parseDuration(timeout), force };
}

async function tellPlugged(
  session: Session,
  machine: InstanceName,
  what: 'attached' | 'detached',
  { disk, changed, running }: Plugged,
): Promise<void> {
  await session.answer({ instance: machine, disk: disk.name, [what]: true, changed, running }, () => {
    const when = running ? '' : ' from its next start on';
    const done = what === 'attached' ? 'plugged in' : 'unplugged';
    return `"${disk.name}" of ${session.paint('good', machine)} is ${done}${changed ? when : ' already'}\n`;
  });
}

/** `zfsdev disk remove`. */
export async function remove(
  session: Session,
  [instance = '', name = '']: Words,
  options: DiskCommandOptions,
): Promise<void> {
  const machine = parseName(instance);
  const unplug = unplugOf(options);
  if (await planned(session, machine, `remove the disk "${name}" of ${machine}`)) return;
  const mayLose = (loss: Loss): Promise<boolean> => mayRemove(session, machine, loss, options.yes === true);
  const removed = await removeDisk(session.ctx, machine, name, { mayLose, ...unplug });
  await session.answer(
    removed
      ? {
          instance: machine,
          removed: name,
          freedBytes: removed.freed,
          snapshots: removed.snapshots,
          ...(removed.stays === undefined ? {} : { fileThatStays: removed.stays }),
        }
      : { instance: machine, removed: null },
    () => {
      if (!removed) return `"${name}" of ${machine} stays\n`;
      const file =
        removed.stays === undefined ? `${formatBytes(removed.freed)} freed` : `${removed.stays} stays`;
      return `"${name}" of ${session.paint('good', machine)} is removed: ${file}\n`;
    },
  );
}

/** Names what goes before it goes. @throws Failure `usage` where nobody can be asked */
async function mayRemove(
  { ctx, json }: Session,
  machine: InstanceName,
  { disk, file, snapshots }: Loss,
  yes: boolean,
): Promise<boolean> {
  const names = snapshots.map((name) => JSON.stringify(name)).join(', ');
  const lost = snapshots.length === 0 ? '' : `the snapshots on it: ${names}`;
  if (yes) {
    if (lost) ctx.emit({ type: 'notice', level: 'info', text: `with "${disk}" go ${lost}` });
    return true;
  }
  const what = file === undefined ? `Forget the disk "${disk}" of ${machine}` : `Delete ${file}`;
  const question = `${what}${lost ? `, with ${lost}` : ''}?`;
  if (!canAsk() || json)
    throw new Failure('usage', `${question} There is no terminal to ask on`, { hint: 'add --yes' });
  return confirm(question, { flag: '--yes', signal: ctx.signal });
}
