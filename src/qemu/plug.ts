import { Failure } from '../core/errors.ts';
import { deadlineIn, poll, type Deadline } from '../host/deadline.ts';
import type { Qmp, QmpEvent } from './qmp.ts';
import type { Definition } from './qmp-schema.ts';
import { noPort, scsiBus } from './storage-argv.ts';

/** All that a disk is to QEMU. */
export interface DiskPlan {
  /** What its nodes need, each with an `id`: the secret of an encrypted one. */
  readonly objects: readonly Definition[];
  /** Its block nodes, each with a `node-name`; one that stands on another comes after it. */
  readonly nodes: readonly Definition[];
  /** What the guest sees of it, with an `id`; absent for one that it does not see. */
  readonly device?: Definition;
}

export interface Patience {
  readonly deadline: Deadline;
  readonly signal: AbortSignal;
}

/** A node is let go of a moment after the device that had it; never this late, unless something else has it. */
const lettingGo = 10_000;

/** Ids of all devices that have one. */
export async function deviceIds(qmp: Qmp): Promise<Set<string>> {
  const found = await qmp.execute('qom-list', { path: '/machine/peripheral' });
  return new Set(found.filter(({ type }) => type.startsWith('child<')).map(({ name }) => name));
}

/** Names and virtual sizes in bytes of all block nodes. */
export async function nodeSizes(qmp: Qmp): Promise<Map<string, number>> {
  const nodes = await qmp.execute('query-named-block-nodes', { flat: true });
  return new Map(
    nodes.map(({ 'node-name': name = '', image }): [string, number] => [name, image['virtual-size'] ?? 0]),
  );
}

/** Where a device is: in a PCI port, `noPort` for one beside the board's own devices; or on the bus of scsi disks. */
export interface Port {
  readonly bus: 'virtio' | 'scsi';
  readonly number: number;
}

/** Where these devices are plugged in; those of other buses are left out. */
export async function portsIn(qmp: Qmp, devices: Iterable<string>): Promise<Map<string, Port>> {
  const ports = new Map<string, Port>();
  const get = (id: string, property: string): Promise<string | number | boolean> =>
    qmp.execute('qom-get', { path: `/machine/peripheral/${id}`, property });
  for (const id of devices) {
    const bus = String(await get(id, 'parent_bus'));
    const port = /\/port(\d+)$/.exec(bus)?.[1];
    if (port !== undefined) ports.set(id, { bus: 'virtio', number: Number(port) });
    else if (/\/pcie?\.0$/.test(bus)) ports.set(id, { bus: 'virtio', number: noPort });
    else if (bus.endsWith(`/${scsiBus}.0`))
      ports.set(id, { bus: 'scsi', number: Number(await get(id, 'scsi-id')) });
  }
  return ports;
}

/** Whether a disk is plugged in: QEMU is asked, as whoever plugged or unplugged it may have been cut off. */
export async function isPlugged(qmp: Qmp, { device, nodes }: DiskPlan): Promise<boolean> {
  if (device) return (await deviceIds(qmp)).has(idOf(device));
  const present = await nodeSizes(qmp);
  return nodes.every((node) => present.has(nodeName(node)));
}

/**
 * Plugs a disk into a running machine, whatever an earlier attempt has left of it there; gives false if it is plugged in
 * already. If it fails, nothing of it stays.
 * @throws Failure `wrong-state` where its bus takes none while the machine runs, `process` in QEMU's words
 */
export async function plug(qmp: Qmp, plan: DiskPlan): Promise<boolean> {
  if (await isPlugged(qmp, plan)) return false;
  await dropNodes(qmp, plan);
  try {
    for (const object of plan.objects) await qmp.execute('object-add', object);
    for (const node of plan.nodes) await qmp.execute('blockdev-add', node);
    if (plan.device) await qmp.execute('device_add', plan.device);
  } catch (error) {
    await dropNodes(qmp, plan).catch(() => undefined);
    throw explained(error);
  }
  return true;
}

/**
 * Unplugs a disk, which the guest has to agree to, and lets go of its file; gives false if there was nothing of it.
 * @throws Failure `deadline` if the guest does not let go in time, and `guest` if it refuses: the disk stays plugged in;
 *   `wrong-state` where its bus lets go of none while the machine runs; `process`, `interrupted`
 */
export async function unplug(qmp: Qmp, plan: DiskPlan, patience: Patience): Promise<boolean> {
  const id = plan.device && idOf(plan.device);
  const there = id !== undefined && (await deviceIds(qmp)).has(id);
  if (there) await haveGuestLetGo(qmp, id, patience);
  return (await dropNodes(qmp, plan)) || there;
}

async function haveGuestLetGo(qmp: Qmp, id: string, patience: Patience): Promise<void> {
  // Listened to before it is asked for: it may come at once.
  const answer = awaitEvent(qmp, patience, ({ name, data }) => {
    if (data['device'] !== id) return undefined;
    if (name === 'DEVICE_DELETED') return 'gone';
    return name === 'DEVICE_UNPLUG_GUEST_ERROR' ? 'refused' : undefined;
  });
  try {
    await qmp.execute('device_del', { id });
  } catch (error) {
    // Asked by somebody who was cut off, the guest may still let go.
    if (!isBeingUnplugged(error)) {
      answer.stop();
      if (isGone(error)) return;
      throw explained(error);
    }
  }
  const outcome = await answer.result;
  if (outcome === 'gone') return;
  // It may have gone in the last moment.
  if (!(await deviceIds(qmp)).has(id)) return;
  throw outcome === 'refused'
    ? new Failure('guest', 'the guest refuses to let go of the disk')
    : new Failure('deadline', `the guest did not let go of the disk within ${seconds(patience)} s`);
}

function seconds({ deadline }: Patience): number {
  return Math.round(deadline.total / 1000);
}

/** The first event that `wanted` gives something for; undefined when the time is over. */
function awaitEvent<T>(
  qmp: Qmp,
  { deadline, signal }: Patience,
  wanted: (event: QmpEvent) => T | undefined,
): { readonly result: Promise<T | undefined>; readonly stop: () => void } {
  let stop = (): void => undefined;
  const result = new Promise<T | undefined>((resolve, reject) => {
    const timer = setTimeout(() => end(() => resolve(undefined)), deadline.left());
    const abort = (): void =>
      end(() => reject(new Failure('interrupted', 'interrupted while waiting for the guest to let go')));
    const deaf = qmp.onEvent((event) => {
      const found = wanted(event);
      if (found !== undefined) end(() => resolve(found));
    });
    const end = (settle: () => void): void => {
      clearTimeout(timer);
      deaf();
      signal.removeEventListener('abort', abort);
      settle();
    };
    stop = () => end(() => resolve(undefined));
    signal.addEventListener('abort', abort, { once: true });
    if (signal.aborted) abort();
    void qmp.ended.then(() =>
      end(() => reject(new Failure('process', 'QEMU ended while the guest was to let go of a disk'))),
    );
  });
  // Whoever asks for the end of it first must not be told of a failure that nobody waits for.
  result.catch(() => undefined);
  return { result, stop };
}

/** Takes away a disk's nodes that no device has any more, and what they needed; gives false if there were none. */
async function dropNodes(qmp: Qmp, { nodes, objects }: DiskPlan): Promise<boolean> {
  const present = await nodeSizes(qmp);
  const names = nodes.map(nodeName).filter((name) => present.has(name));
  for (const name of names.toReversed()) await dropNode(qmp, name);
  if (objects.length === 0) return names.length > 0;
  const left = new Set((await qmp.execute('qom-list', { path: '/objects' })).map(({ name }) => name));
  for (const id of objects.map(idOf)) if (left.has(id)) await qmp.execute('object-del', { id });
  return names.length > 0;
}

/** It may still be in use for a moment after its device is gone. */
async function dropNode(qmp: Qmp, name: string): Promise<void> {
  let busy: unknown;
  const attempt = async (): Promise<true | undefined> => {
    try {
      await qmp.execute('blockdev-del', { 'node-name': name });
      return true;
    } catch (error) {
      if (/Failed to find node/.test(wordsOf(error))) return true;
      if (!/is in use/.test(wordsOf(error))) throw error;
      busy = error;
      return undefined;
    }
  };
  const { signal } = new AbortController();
  await poll('QEMU to let go of a file', attempt, { deadline: deadlineIn(lettingGo), signal }).catch(
    (error: unknown) => {
      throw busy ?? error;
    },
  );
}

function nodeName(node: Definition): string {
  return String(node['node-name']);
}

function idOf(definition: Definition): string {
  return String(definition['id']);
}

function wordsOf(error: unknown): string {
  const words = error instanceof Failure ? error.data['desc'] : undefined;
  return typeof words === 'string' ? words : '';
}

function isGone(error: unknown): boolean {
  return error instanceof Failure && error.data['class'] === 'DeviceNotFound';
}

function isBeingUnplugged(error: unknown): boolean {
  return /already in the process of unplug/.test(wordsOf(error));
}

/** QEMU's words for a bus that nothing can be plugged into or unplugged from while the machine runs. */
function explained(error: unknown): unknown {
  if (!(error instanceof Failure)) return error;
  const fixed = /does not support hot-?(un)?plugging|Bus '.*' not found|No '.*' bus found/i;
  if (!fixed.test(wordsOf(error))) return error;
  return new Failure(
    'wrong-state',
    `its bus is only changed while the machine is stopped: ${error.message}`,
    {
      data: { ...error.data, fixedBus: true },
      cause: error,
    },
  );
}
