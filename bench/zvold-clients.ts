import { mkdtempSync, symlinkSync } from 'node:fs';
import { join } from 'node:path';
import { clientOver } from '../src/zvol/client.ts';
import type { ZvoldClient } from '../src/zvol/api.ts';
import { timed } from './measure.ts';

const MiB = 2 ** 20;
const socket = '/run/zfsdev/zvold.sock';

/** What came of many clients at once. */
export interface ClientsReport {
  readonly clients: number;
  readonly seconds: number;
  readonly calls: number;
  /** The words of all calls that failed. */
  readonly errors: readonly string[];
  /** Volumes, and snapshots with their hold, that were made and are there afterwards. */
  readonly volumes: number;
  readonly held: number;
}

/** A client of zvold's at this socket of the machine it runs in. */
export function connectTo(path: string): ZvoldClient {
  const proxy = { path, problem: () => undefined, close: () => Promise.resolve() };
  return clientOver(proxy, 'this machine', new AbortController().signal);
}

/**
 * So many clients at once, each with a connection of its own: each makes a volume of its own with a snapshot that goes again, and
 * adds a snapshot with a hold to one volume that they all share.
 */
export async function clientsAtOnce(count: number): Promise<ClientsReport> {
  // Clients of one address share a connection; a link of its own makes each of them another address.
  const folder = mkdtempSync('/tmp/clients-');
  const clients = Array.from({ length: count }, (_, index) => {
    const path = join(folder, String(index));
    symlinkSync(socket, path);
    return connectTo(path);
  });
  const [first] = clients;
  if (!first) throw new Error('no clients were asked for');
  await first.createVolume({ name: 'shared', sizeBytes: 16 * MiB });
  let calls = 0;
  const errors: string[] = [];
  const work = async (client: ZvoldClient, index: number): Promise<void> => {
    const own = `own${index}`;
    const steps: readonly (() => Promise<unknown>)[] = [
      () => client.createVolume({ name: own, sizeBytes: 16 * MiB }),
      () => client.createSnapshot('shared', `of${index}`),
      () => client.holdSnapshot('shared', `of${index}`, `tag${index}`),
      () => client.createSnapshot(own, 'once'),
      () => client.volumes(),
      () => client.deleteSnapshot(own, 'once'),
      () => client.volume(own),
    ];
    for (const step of steps) {
      calls += 1;
      await step().catch((error: unknown) => errors.push(String(error)));
    }
  };
  const seconds = await timed(() => Promise.all(clients.map(work)));
  const left = await first.volumes();
  const shared = left.find(({ name }) => name === 'shared')?.snapshots ?? [];
  await Promise.all(clients.map((client) => client.close()));
  return {
    clients: count,
    seconds,
    calls,
    errors,
    volumes: left.filter(({ name, snapshots }) => /^own\d+$/.test(name) && snapshots.length === 0).length,
    held: shared.filter(({ name, holds }) => /^of\d+$/.test(name) && holds === 1).length,
  };
}
