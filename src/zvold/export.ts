import { createHash, randomUUID } from 'node:crypto';
import { mkdir, open, readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { Command } from './command.ts';
import { discard, discardAll } from './discard.ts';
import { wordsOf, ZvolError } from './errors.ts';
import { makeOwnFolder } from './filling.ts';
import { findSnapshot, ownFolder, property } from './inventory.ts';
import { deviceOf, inventory, withVolume, type Keeper } from './keeper.ts';
import type { Zvol } from './model.ts';
import { ownIdPrefix } from './names.ts';
import { watching } from './room.ts';
import { spoolRoom } from './source.ts';

export interface ExportsOptions {
  readonly command: Command;
  /** A folder of the daemon's own, for qcow2s, which have to be made before they can be sent. */
  readonly folder: string;
  /** For what nobody is there to be told. */
  readonly report?: (words: string) => void;
}

export interface ExportRequest {
  /** Its name or id. */
  readonly volume: string;
  /** Empty: the content as of this moment. */
  readonly snapshot: string;
  readonly format: 'raw' | 'qcow2';
}

/** A part of what is exported; what no part covers is zero. One without data tells how far it is. */
export interface Part {
  readonly offset: number;
  readonly data: Buffer;
}

export interface Exported {
  /** Bytes of the whole. */
  readonly total: number;
  readonly parts: AsyncIterable<Part>;
  /** Of all bytes, zeros included; to be asked once all parts were taken. */
  readonly sha256: () => string;
  /** Takes away what was made for it; never fails. */
  readonly close: () => Promise<void>;
}

const partLength = 512 * 1024;
const zeros = Buffer.alloc(partLength);
/** Bytes of zeros in a row after which a receiver is told how far it is. */
const longestSilence = 64 * 1024 * 1024;

/** What exports make in the pool is called so, with an id. */
const prefix = 'export-';

/** True for what an export made, not an import: those have the ids of their imports, which may be called anything. */
export function isOfExport({ pool }: Keeper, { dataset, id }: Pick<Zvol, 'dataset' | 'id'>): boolean {
  return dataset.startsWith(`${pool}/${ownFolder}/${prefix}`) && id.startsWith(ownIdPrefix);
}

/**
 * Gives the content of volumes out: through a clone, which nobody else sees. It, a snapshot that is made for it, and a file
 * for a qcow2 carry the id of the export, so that a later daemon knows them if this one ends in the middle.
 */
export class Exports {
  readonly #keeper: Keeper;
  readonly #command: Command;
  readonly #folder: string;
  readonly #report: (words: string) => void;
  readonly #running = new Set<string>();

  constructor(keeper: Keeper, { command, folder, report }: ExportsOptions) {
    this.#keeper = keeper;
    this.#command = command;
    this.#folder = join(folder, 'exports');
    this.#report = (words) => report?.(words);
  }

  /**
   * Takes away what exports of a daemon left that ended in the middle.
   * @param tell told what was done, in words. @throws ZvolError why not all of it could be; to be called again then
   */
  async recover(tell: (words: string) => void): Promise<void> {
    for (const name of await readdir(this.#folder).catch(() => []))
      if (!this.#running.has(name)) await rm(join(this.#folder, name), { recursive: true, force: true });
    const { unfinished } = await inventory(this.#keeper);
    const gone = (what: string): string => `${what} of an export that was cut off was destroyed`;
    const clones = unfinished.filter(
      (zvol) => isOfExport(this.#keeper, zvol) && !this.#running.has(zvol.dataset.split('/').at(-1) ?? ''),
    );
    const leftovers = clones.map(({ dataset }) => [dataset, gone(dataset)] as const);
    await discardAll(this.#keeper, leftovers, tell);
    for (const snapshot of await this.#snapshotsLeft()) {
      await this.#keeper.zfs.change('zfs', 'destroy', '-d', snapshot);
      tell(gone(snapshot));
    }
  }

  /** Snapshots that were made for exports of an earlier daemon, and not cloned. */
  async #snapshotsLeft(): Promise<string[]> {
    const { zfs, pool } = this.#keeper;
    const found: string[] = [];
    const columns = ['-o', `name,${property.import}`];
    await zfs.survey(
      ['zfs', 'list', '-Hp', '-r', '-t', 'snapshot', ...columns, pool],
      ([name = '', id = '']) => {
        // Both, as a name could be anybody's, and volumes that are being imported hand the property on.
        if (id.startsWith(prefix) && name.endsWith(`@${id}`) && !this.#running.has(id)) found.push(name);
      },
    );
    return found;
  }

  /**
   * Opens the content of a volume, or of one of its snapshots.
   * @param signal ends it; it has to be closed all the same. @throws ZvolError `NOT_FOUND`, `RESOURCE_EXHAUSTED`
   */
  async open({ volume, snapshot, format }: ExportRequest, signal: AbortSignal): Promise<Exported> {
    const id = `${prefix}${randomUUID()}`;
    const { machine, pool } = this.#keeper;
    const dataset = `${pool}/${ownFolder}/${id}`;
    const path = join(this.#folder, id);
    this.#running.add(id);
    const close = async (): Promise<void> => {
      try {
        await rm(path, { force: true });
        await discard(this.#keeper, dataset);
      } catch (error) {
        // What was exported is whole, or has failed for another reason.
        this.#report(
          `${dataset} of an export could not be taken away, and goes when zvold starts again: ${wordsOf(error)}`,
        );
      } finally {
        this.#running.delete(id);
      }
    };
    try {
      const size = await this.#clone(id, dataset, volume, snapshot);
      const device = deviceOf(this.#keeper, dataset);
      await machine.awaitDevice(device, true);
      if (format === 'raw') return { total: size, ...readParts(device, size, signal), close };
      const total = await this.#asQcow2(device, path, signal);
      return { total, ...readParts(path, total, signal), close };
    } catch (error) {
      await close();
      throw error;
    }
  }

  /** @returns bytes of the content */
  async #clone(id: string, dataset: string, word: string, name: string): Promise<number> {
    const { zfs, machine } = this.#keeper;
    return withVolume(this.#keeper, word, [], async (volume) => {
      const mark = ['-o', `${property.import}=${id}`];
      const snapshot = name === '' ? undefined : findSnapshot(volume, name);
      const origin = snapshot?.fullName ?? `${volume.dataset}@${id}`;
      await makeOwnFolder(this.#keeper);
      if (name === '') {
        await machine.flush(volume.path);
        await zfs.change('zfs', 'snapshot', ...mark, origin);
      }
      try {
        await zfs.change('zfs', 'clone', ...mark, '-o', 'readonly=on', origin, dataset);
      } finally {
        // It goes with the clone, or at once if there is none.
        if (name === '') await zfs.change('zfs', 'destroy', '-d', origin);
      }
      // Its volume may have grown since.
      return snapshot?.size ?? volume.size;
    });
  }

  /** @returns bytes of the file */
  async #asQcow2(device: string, path: string, signal: AbortSignal): Promise<number> {
    await mkdir(this.#folder, { recursive: true, mode: 0o700 });
    const full = (): ZvolError =>
      new ZvolError(
        'RESOURCE_EXHAUSTED',
        `there is no room for the qcow2 in ${this.#folder} of the machine, where it is made; a raw export needs none`,
      );
    const { exitCode, stderr } = await watching(
      signal,
      (ended) =>
        this.#command(['qemu-img', 'convert', '-q', '-c', '-f', 'raw', '-O', 'qcow2', device, path], {
          deadline: 24 * 3_600_000,
          signal: ended,
        }),
      async () => ((await spoolRoom(this.#folder)) <= 0 ? full() : undefined),
    );
    if (exitCode !== 0) {
      if (/No space left/.test(stderr)) throw full();
      throw new ZvolError('INTERNAL', `the qcow2 can't be made: ${stderr.trim()}`);
    }
    const file = await open(path, 'r');
    try {
      return (await file.stat()).size;
    } finally {
      await file.close();
    }
  }
}

function readParts(path: string, total: number, signal: AbortSignal): Pick<Exported, 'parts' | 'sha256'> {
  const hash = createHash('sha256');
  async function* parts(): AsyncGenerator<Part> {
    const file = await open(path, 'r');
    const buffer = Buffer.allocUnsafe(partLength);
    try {
      for (let [offset, told] = [0, 0]; offset < total;) {
        // A receiver that is gone is seen here, too: zeros are not sent.
        signal.throwIfAborted();
        const { bytesRead } = await file.read(buffer, 0, Math.min(partLength, total - offset), offset);
        if (bytesRead === 0)
          throw new ZvolError('DATA_LOSS', `${path} ended after ${offset} of ${total} bytes`);
        const data = buffer.subarray(0, bytesRead);
        hash.update(data);
        const isZero = data.equals(zeros.subarray(0, bytesRead));
        // What is sent may wait for its receiver while the next is read.
        if (!isZero) yield { offset, data: Buffer.from(data) };
        else if (offset - told >= longestSilence) yield { offset, data: zeros.subarray(0, 0) };
        if (!isZero || offset - told >= longestSilence) told = offset;
        offset += bytesRead;
      }
    } finally {
      await file.close();
    }
  }
  return { parts: parts(), sha256: () => hash.digest('hex') };
}
