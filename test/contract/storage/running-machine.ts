import { readFileSync } from 'node:fs';
import { readdir, writeFile } from 'node:fs/promises';
import { expect } from 'vitest';
import { MiB } from '../../../src/core/bytes.ts';
import { parseName } from '../../../src/core/names.ts';
import { deadlineIn } from '../../../src/host/deadline.ts';
import { connectQmp } from '../../../src/qemu/qmp.ts';
import { addDisk, type AddedDisk } from '../../../src/storage/disk-add.ts';
import { detachDisk, type Plugged } from '../../../src/storage/disk-attach.ts';
import { diskFromOptions, type DiskOptions } from '../../../src/storage/disk-definition.ts';
import { removeDisk, type RemovedDisk } from '../../../src/storage/disk-remove.ts';
import type { Spec } from '../../../src/template/spec.ts';
import type { DiskDevice } from '../../../src/template/storage.ts';
import { requireRecorded } from '../../../src/vm/disk-plan.ts';
import { readInstance } from '../../../src/vm/store.ts';
import { fakeQemu, type FakeQemu } from '../../fakes/qemu-disks.ts';
import { call } from '../../support/call.ts';
import { testContext, type TestContext } from '../../support/context.ts';
import { stoppedInstance } from '../../support/instances.ts';
import { processOf } from '../../support/running.ts';

/** The machine's name. */
export const name = parseName('run');
/** Milliseconds for a guest that answers; one that does not is given less. */
export const patience = 60_000;

/** A machine that runs, as far as zfsdev can tell: a process, and a QEMU of the tests that answers for its disks. */
export class RunningMachine {
  readonly ctx: TestContext;
  readonly qemu: FakeQemu;
  readonly specFile: string;
  /** The folder of the disks that are its own. */
  readonly disks: string;
  readonly interrupt: AbortController;
  readonly #end: () => Promise<void>;

  private constructor(
    ctx: TestContext,
    qemu: FakeQemu,
    interrupt: AbortController,
    files: { readonly spec: string; readonly disks: string },
    end: () => Promise<void>,
  ) {
    this.ctx = ctx;
    this.qemu = qemu;
    this.interrupt = interrupt;
    [this.specFile, this.disks] = [files.spec, files.disks];
    this.#end = end;
  }

  static async open(): Promise<RunningMachine> {
    const interrupt = new AbortController();
    const ctx = await testContext({ env: { ZFSDEV_RESERVE: '1B' }, signal: interrupt.signal });
    const paths = await stoppedInstance(ctx.paths, name, { diskBound: 64 * MiB });
    call('qemu-img', 'create', '-q', '-f', 'qcow2', paths.disk, '64M');
    const end = await processOf(paths);
    return new RunningMachine(ctx, await fakeQemu(paths.qmp), interrupt, paths, end);
  }

  async close(): Promise<void> {
    await this.#end();
    await this.qemu.close();
    await this.ctx.remove();
    this.qemu.verify();
  }

  add(disk: string, options: DiskOptions = { size: '8MiB' }): Promise<AddedDisk> {
    const wanted = { command: 'zfsdev disk add ...', overcommit: false };
    return addDisk(this.ctx, name, diskFromOptions(disk, options), wanted);
  }

  /** Without asking the guest, of which there is none. */
  detach(disk: string, time = patience): Promise<Plugged> {
    return detachDisk(this.ctx, name, disk, { patience: time, force: true });
  }

  remove(disk: string, time = patience): Promise<RemovedDisk | undefined> {
    const mayLose = (): Promise<boolean> => Promise.resolve(true);
    return removeDisk(this.ctx, name, disk, { mayLose, patience: time, force: true });
  }

  /** What is written down of its disks. */
  storage(): DiskDevice[] {
    return (this.spec().storage ?? []) as DiskDevice[];
  }

  spec(): Spec {
    return JSON.parse(readFileSync(this.specFile, 'utf8')) as Spec;
  }

  async inFolder(): Promise<string[]> {
    return (await readdir(this.disks).catch(() => [])).sort();
  }

  /** As a zfsdev that is killed leaves it: neither undo nor record. */
  async forgetWhatWasDone(before: string): Promise<void> {
    await writeFile(this.specFile, before);
  }

  /** Nothing of the disk is in QEMU, and everything else as it was. */
  expectBare(): void {
    expect([...this.qemu.devices.keys()]).toEqual(['port1', 'port2', 'port3', 'port4', 'blk0']);
    expect([...this.qemu.nodes.keys()]).toEqual(['disk0-file', 'disk0']);
    expect([...this.qemu.objects.keys()]).toEqual([]);
  }

  /** What is written down is what QEMU has. */
  async asRecorded(): Promise<void> {
    const { qmp: socket } = this.ctx.paths.instance(name);
    const qmp = await connectQmp(socket, { deadline: deadlineIn(patience), signal: this.ctx.signal });
    try {
      await requireRecorded(this.ctx, qmp, readInstance(this.ctx, name));
    } finally {
      qmp.close();
    }
  }
}
