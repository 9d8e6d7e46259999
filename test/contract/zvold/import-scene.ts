import { createHash, randomBytes } from 'node:crypto';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { createServer, type RequestListener, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { expect } from 'vitest';
import type { ImportRequest } from '../../../src/zvold/request.ts';
import { toQcow2 } from '../../support/qemu-img.ts';
import { ZvoldHouse } from './support.ts';

export const KiB = 1024;
export const MiB = 1024 * KiB;

/** Random bytes with a hole of zeros in it, not a whole number of blocks long. */
export const sample = Buffer.concat([
  randomBytes(1500 * KiB),
  Buffer.alloc(2 * MiB),
  randomBytes(100 * KiB + 7),
]);
export const sampleSum = createHash('sha256').update(sample).digest('hex');

/** A daemon's insides, and where its imports come from: files, and a server on this host. */
export class ImportScene {
  readonly house: ZvoldHouse;
  server: Server | undefined;

  private constructor(house: ZvoldHouse) {
    this.house = house;
  }

  static async open(): Promise<ImportScene> {
    const scene = new ImportScene(await ZvoldHouse.open());
    await mkdir(scene.path(''));
    return scene;
  }

  async close(): Promise<void> {
    this.server?.closeAllConnections();
    this.server?.close();
    await this.house.close();
  }

  /** A file that may be imported. */
  path(name: string): string {
    return join(this.house.folder, 'images', name);
  }

  /** Starts the server; gives the address of a disk on it. */
  async serve(answer: RequestListener): Promise<string> {
    const server = createServer(answer);
    this.server = server;
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    return `http://127.0.0.1:${(server.address() as AddressInfo).port}/disk`;
  }

  /** Makes disk.qcow2 with random content, by these options of qemu-img. */
  async qcow2(size = 2 * MiB, ...options: string[]): Promise<void> {
    await writeFile(this.path('disk.raw'), randomBytes(size));
    toQcow2(this.path('disk.raw'), this.path('disk.qcow2'), ...options);
  }

  /** A volume has the sample, and zeros behind it to its end. */
  async expectSample(dataset: string): Promise<void> {
    const device = await readFile(this.house.device(dataset));
    expect(device.length % (16 * KiB)).toBe(0);
    expect(device.subarray(0, sample.length).equals(sample)).toBe(true);
    expect(device.subarray(sample.length).every((byte) => byte === 0)).toBe(true);
  }
}

export const wanted = (more: Partial<ImportRequest> = {}): ImportRequest => ({
  name: 'disk',
  target: 'template',
  sha256: '',
  id: '',
  ...more,
});

/** Content that never comes. */
export async function* nothing(): AsyncGenerator<Buffer> {
  yield await new Promise<Buffer>(() => undefined);
}
