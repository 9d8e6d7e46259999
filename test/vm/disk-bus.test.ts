import { readFile, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { bytes } from '../../src/core/bytes.ts';
import { parseName } from '../../src/core/names.ts';
import { deadlineIn } from '../../src/host/deadline.ts';
import { createQcow2 } from '../../src/qemu/img-create.ts';
import { isPlugged, nodeSizes, plug, portsIn, unplug } from '../../src/qemu/plug.ts';
import { connectQmp, type Qmp } from '../../src/qemu/qmp.ts';
import { diskFromOptions, type DiskOptions } from '../../src/storage/disk-definition.ts';
import { planOf } from '../../src/vm/disk-plan.ts';
import type { DiskDevice } from '../../src/template/storage.ts';
import { callIn } from '../support/call.ts';
import { testContext, type TestContext } from '../support/context.ts';
import { stoppedInstance } from '../support/instances.ts';

const name = parseName('bus');
let ctx: TestContext;
let qmp: Qmp;

const call = (program: string, ...args: string[]): string => callIn(ctx.folder, program, ...args);

/** A QEMU that has the ports and the controller of a machine, and runs nothing. */
beforeEach(async () => {
  ctx = await testContext();
  const { pid, qmp: socket } = await stoppedInstance(ctx.paths, name);
  const device = (properties: object): string[] => ['-device', JSON.stringify(properties)];
  call(
    'qemu-system-x86_64',
    ...['-S', '-nodefaults', '-display', 'none', '-machine', 'q35,accel=tcg', '-m', '16M'],
    ...[1, 2].flatMap((slot) => device({ driver: 'pcie-root-port', id: `port${slot}`, chassis: slot, slot })),
    ...device({ driver: 'virtio-scsi-pci', id: 'scsi0' }),
    ...['-chardev', `socket,id=qmp,path=${socket.replaceAll(',', ',,')},server=on,wait=off`],
    ...['-mon', 'chardev=qmp,mode=control', '-pidfile', pid, '-daemonize'],
  );
  qmp = await connectQmp(socket, { deadline: deadlineIn(60_000), signal: ctx.signal });
});
afterEach(async () => {
  qmp.close();
  const pid = Number(await readFile(ctx.paths.instance(name).pid, 'utf8').catch(() => ''));
  if (pid > 1) process.kill(pid, 'SIGKILL');
  await ctx.remove();
});

const patience = () => ({ deadline: deadlineIn(60_000), signal: ctx.signal });

/** A disk of 8 MiB in a file whose name is hard on parsers. */
async function disk(diskName: string, options: DiskOptions, port?: number): Promise<DiskDevice> {
  const file = join(ctx.folder, `${diskName}, "x" é.img`);
  const { passphraseFile, type = 'qcow2' } = options;
  await writeFile(file, '');
  if (type === 'raw') await truncate(file, 8 * 2 ** 20);
  else
    await createQcow2(ctx, {
      path: file,
      size: bytes(8 * 2 ** 20),
      ...(passphraseFile ? { passphraseFile } : {}),
    });
  return {
    ...diskFromOptions(diskName, { ...options, file, size: '8MiB' }),
    ...(port === undefined ? {} : { port }),
  };
}

const ports = async (): Promise<unknown[]> => [...(await portsIn(qmp, ['device-data'])).values()];

it.each([
  ['virtio', { interface: 'virtio' }, 2],
  ['scsi', { interface: 'scsi', type: 'raw' }, 7],
] as const)('a disk is plugged into %s where it is to be, twice is once', async (bus, options, port) => {
  const plan = planOf(ctx, name, await disk('data', options, port));
  expect(await plug(qmp, plan)).toBe(true);
  expect(await plug(qmp, plan)).toBe(false);
  expect(await ports()).toEqual([{ bus, number: port }]);
  expect((await nodeSizes(qmp)).get('disk-data')).toBe(8 * 2 ** 20);
});

it('an encrypted disk without an interface comes and goes, and its secret with it', async () => {
  const passphraseFile = join(ctx.folder, 'pass phrase');
  await writeFile(passphraseFile, 'sesame', { mode: 0o600 });
  const plan = planOf(ctx, name, await disk('data', { interface: 'none', passphraseFile }));
  await plug(qmp, plan);
  expect(await isPlugged(qmp, plan)).toBe(true);
  expect(await unplug(qmp, plan, patience())).toBe(true);
  expect(await isPlugged(qmp, plan)).toBe(false);
  const left = await qmp.execute('qom-list', { path: '/objects' });
  expect(left.map(({ name: object }) => object)).not.toContain('disk-data-secret');
  expect(await unplug(qmp, plan, patience())).toBe(false);
});

it('what an attempt that was cut off left is replaced, and a bus that takes none is told', async () => {
  const data = await disk('data', {});
  const plan = planOf(ctx, name, { ...data, port: 1 });
  const fixed = planOf(ctx, name, data);
  for (const node of plan.nodes) await qmp.execute('blockdev-add', node);
  await expect(plug(qmp, fixed)).rejects.toMatchObject({ reason: 'wrong-state', data: { fixedBus: true } });
  expect((await nodeSizes(qmp)).size).toBe(0);
  await plug(qmp, plan);
  expect(await ports()).toEqual([{ bus: 'virtio', number: 1 }]);
  // No guest runs here that could let go, and a second request is the same as the first.
  for (const time of [300, 300])
    await expect(unplug(qmp, plan, { ...patience(), deadline: deadlineIn(time) })).rejects.toMatchObject({
      reason: 'deadline',
    });
  expect(await isPlugged(qmp, plan)).toBe(true);
});

it('a scsi disk is let go of at once', async () => {
  const plan = planOf(ctx, name, await disk('data', { interface: 'scsi' }, 0));
  await plug(qmp, plan);
  expect(await unplug(qmp, plan, patience())).toBe(true);
  expect((await nodeSizes(qmp)).size).toBe(0);
});
