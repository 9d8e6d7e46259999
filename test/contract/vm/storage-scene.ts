import { readdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { bytes, MiB } from '../../../src/core/bytes.ts';
import { parseName } from '../../../src/core/names.ts';
import { UndoStack } from '../../../src/core/undo.ts';
import { resolveSpec } from '../../../src/template/resolve.ts';
import type { Spec } from '../../../src/template/spec.ts';
import type { DiskDevice, StorageDevice } from '../../../src/template/storage.ts';
import type { Instance } from '../../../src/vm/instance.ts';
import { newState, type State } from '../../../src/vm/state.ts';
import { checkStorage, type StoragePlan } from '../../../src/vm/storage-check.ts';
import { layOutStorage } from '../../../src/vm/storage-files.ts';
import { call } from '../../support/call.ts';
import { testContext, type TestContext } from '../../support/context.ts';
import { stoppedInstance } from '../../support/instances.ts';

/** A disk of no size of its own. */
export const sizeless = (name: string, more: Partial<DiskDevice> = {}): DiskDevice => ({
  type: 'qcow2',
  name,
  interface: 'virtio',
  media: 'disk',
  readonly: false,
  discard: true,
  ...more,
});
/** A disk of 64 MiB. */
export const disk = (name: string, more: Partial<DiskDevice> = {}): DiskDevice =>
  sizeless(name, { size: bytes(64 * MiB), ...more });

export async function specOf(name: string, ...storage: StorageDevice[]): Promise<Spec> {
  return { ...(await resolveSpec('zfs-test', { name })), storage };
}

/** Machines with storage, and a folder for their files. */
export class StorageScene {
  readonly ctx: TestContext;

  private constructor(ctx: TestContext) {
    this.ctx = ctx;
  }

  static async open(): Promise<StorageScene> {
    return new StorageScene(await testContext());
  }

  close(): Promise<void> {
    return this.ctx.remove();
  }

  at(...names: string[]): string {
    return join(this.ctx.folder, ...names);
  }

  /** Makes an empty qcow2. */
  make(file: string, size = '64M'): void {
    call('qemu-img', 'create', '-q', '-f', 'qcow2', this.at(file), size);
  }

  /** A machine as it is just before it starts: its folder, spec and state are there, and perhaps its disk. */
  async machine(
    name: string,
    storage: readonly StorageDevice[],
    state: Partial<State> = {},
  ): Promise<Instance> {
    const paths = await stoppedInstance(this.ctx.paths, name, state);
    const spec = await specOf(name, ...storage);
    await writeFile(paths.spec, JSON.stringify(spec));
    return { name: parseName(name), spec, state: { ...newState('qemu'), ...state } };
  }

  /** Looks at the storage of a machine "one". */
  async check(...storage: StorageDevice[]): Promise<StoragePlan> {
    return checkStorage(this.ctx, await specOf('one', ...storage));
  }

  /** Has the machine "one" make its storage. */
  async layOut(...storage: StorageDevice[]): Promise<UndoStack> {
    const undo = new UndoStack();
    await layOutStorage(this.ctx, await this.machine('one', storage), undo);
    return undo;
  }

  /** Everything below the test's folder but the state home; links are not followed. */
  async files(folder = this.ctx.folder, above = ''): Promise<string[]> {
    const entries = await readdir(folder, { withFileTypes: true });
    const found = await Promise.all(
      entries
        .filter(({ name }) => above !== '' || name !== 'home')
        .map(async (entry) => {
          const name = join(above, entry.name);
          return [name, ...(entry.isDirectory() ? await this.files(join(folder, entry.name), name) : [])];
        }),
    );
    return found.flat().sort();
  }
}
