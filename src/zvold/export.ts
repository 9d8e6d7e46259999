import { createHash, randomUUID } from 'node:crypto';
import { open, rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { Command } from './command.ts';
import { ZvolError } from './errors.ts';
import { findSnapshot, ownFolder, property } from './inventory.ts';
import { lockOf, volumeOf, type Keeper } from './keeper.ts';

export interface ExportOptions {
  readonly command: Command;
  /** For a qcow2, which has to be made before it can be sent. */
  readonly folder: string;
  readonly signal: AbortSignal;
}

/** A part of what is exported; what no part covers is zero. */
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
  readonly close: () => Promise<void>;
}

const partLength = 512 * 1024;
const zeros = Buffer.alloc(partLength);

/**
 * Opens the content of a volume, as of this moment, or of one of its snapshots: through a clone, which nobody else sees, and
 * which the next start of the daemon takes away if this one ends in the middle.
 */
export async function openExport(
  keeper: Keeper,
  { volume: word, snapshot, format }: { volume: string; snapshot: string; format: 'raw' | 'qcow2' },
  options: ExportOptions,
): Promise<Exported> {
  const { zfs, machine, pool, locks } = keeper;
  const id = `export-${randomUUID()}`;
  const dataset = `${pool}/${ownFolder}/${id}`;
  const volume = await volumeOf(keeper, word);
  keeper.atWork.add(dataset);
  const close = (): Promise<void> =>
    zfs.change('zfs', 'destroy', dataset).finally(() => keeper.atWork.delete(dataset));
  await locks.holding([lockOf.volume(volume.name)], async () => {
    const origin = snapshot === '' ? `${volume.dataset}@${id}` : findSnapshot(volume, snapshot).fullName;
    if (snapshot === '') {
      await machine.flush(volume.path);
      await zfs.change('zfs', 'snapshot', origin);
    }
    await zfs
      .change('zfs', 'create', '-o', 'canmount=off', '-o', 'mountpoint=none', `${pool}/${ownFolder}`)
      .catch((error: unknown) => {
        if (!(error instanceof ZvolError) || error.code !== 'ALREADY_EXISTS') throw error;
      });
    await zfs.change('zfs', 'clone', '-o', `${property.import}=${id}`, '-o', 'readonly=on', origin, dataset);
    // It goes with the clone.
    if (snapshot === '') await zfs.change('zfs', 'destroy', '-d', origin);
  });
  try {
    const device = `${machine.devices}/${dataset}`;
    await machine.awaitDevice(device, true);
    if (format === 'raw') return { total: volume.size, ...readParts(device, volume.size), close };
    return await asQcow2(device, id, options, close);
  } catch (error) {
    await close();
    throw error;
  }
}

async function asQcow2(
  device: string,
  id: string,
  { command, folder, signal }: ExportOptions,
  close: () => Promise<void>,
): Promise<Exported> {
  const path = join(folder, `${id}.qcow2`);
  const gone = async (): Promise<void> => {
    await rm(path, { force: true });
    await close();
  };
  try {
    const { exitCode, stderr } = await command(
      ['qemu-img', 'convert', '-q', '-c', '-f', 'raw', '-O', 'qcow2', device, path],
      { deadline: 24 * 3_600_000, signal },
    );
    if (exitCode !== 0) {
      const code = /No space left/.test(stderr) ? 'RESOURCE_EXHAUSTED' : 'INTERNAL';
      throw new ZvolError(code, `the qcow2 can't be made: ${stderr.trim()}`);
    }
    const file = await open(path, 'r');
    const total = (await file.stat()).size;
    await file.close();
    return { total, ...readParts(path, total), close: gone };
  } catch (error) {
    await rm(path, { force: true });
    throw error;
  }
}

function readParts(path: string, total: number): Pick<Exported, 'parts' | 'sha256'> {
  const hash = createHash('sha256');
  async function* parts(): AsyncGenerator<Part> {
    const file = await open(path, 'r');
    try {
      for (let offset = 0; offset < total;) {
        const { buffer, bytesRead } = await file.read(Buffer.allocUnsafe(partLength), 0, partLength, offset);
        if (bytesRead === 0)
          throw new ZvolError('DATA_LOSS', `${path} ended after ${offset} of ${total} bytes`);
        const data = buffer.subarray(0, bytesRead);
        hash.update(data);
        if (!data.equals(zeros.subarray(0, bytesRead))) yield { offset, data };
        offset += bytesRead;
      }
    } finally {
      await file.close();
    }
  }
  return { parts: parts(), sha256: () => hash.digest('hex') };
}
