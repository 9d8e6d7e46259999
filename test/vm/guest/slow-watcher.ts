// A watcher that does not read, and falls behind what happens on a real pool; run inside a machine.
import { Client, credentials } from '@grpc/grpc-js';
import { runCommand } from '../../../src/zvold/command.ts';
import { contract } from '../../../src/zvold/contract.ts';
import { serviceDefinition } from '../../../src/zvold/definitions.ts';
import { Exports } from '../../../src/zvold/export.ts';
import { Hub } from '../../../src/zvold/hub.ts';
import { Imports } from '../../../src/zvold/imports.ts';
import { listen } from '../../../src/zvold/server.ts';
import { createSnapshot } from '../../../src/zvold/snapshots.ts';
import { createVolume, resizeVolume } from '../../../src/zvold/volumes.ts';
import { folder, keeperOf, MiB, must, scratchPool } from './scratch-pool.ts';

/**
 * Changes that wait for it, and changes: fewer than a thousand, which would take minutes. What is told of each is large, so that few
 * of them fill what else lies on the way to it.
 */
const [longestQueue, changes] = [10, 100];
const large = 'x'.repeat(120);

interface Told {
  readonly event: string;
  readonly volume?: { readonly name: string; readonly sizeBytes: number };
}

/** Has a watcher sleep while a volume changes again and again. */
export async function slowWatcher(): Promise<void> {
  const remove = scratchPool('slow', folder, 128 * MiB);
  const keeper = { ...keeperOf('slow'), hub: new Hub(longestQueue) };
  const reports: string[] = [];
  const report = (words: string): void => void reports.push(words);
  const place = { command: runCommand, folder: `${folder}/slow`, report };
  const policy = { folders: [], allowLocalAddresses: false, largest: 2 ** 30 };
  const imports = new Imports(keeper, { ...place, policy, atOnce: 1 });
  const exports = new Exports(keeper, place);
  const daemon = { keeper, imports, exports, version: '', openzfs: '', report };
  const socket = `${folder}/slow.sock`;
  const listener = await listen(daemon, { socket });
  // It takes little at once, so that what it does not read soon waits in the daemon.
  const client = new Client(`unix:${socket}`, credentials.createInsecure(), {
    'grpc-node.flow_control_window': 1024,
  });
  try {
    await createVolume(keeper, { name: 'data', size: MiB, thick: false, id: large });
    for (const at of ['1', '2', '3', '4', '5', '6'])
      await createSnapshot(keeper, 'data', `${large}${at}`, `${large}${at}`);
    const { path, requestSerialize, responseDeserialize } =
      serviceDefinition(contract, 'zfsdev.zvol.v1.ZvolService')['Watch'] ?? missing();
    const stream = client.makeServerStreamRequest(path, requestSerialize, responseDeserialize, {});
    stream.on('error', () => undefined);
    const watch = stream[Symbol.asyncIterator]() as AsyncIterator<Told>;
    must(
      (await eventsUntil(watch, ({ event }) => event === 'synced')).length === 2,
      'it is told of one volume',
    );
    for (let at = 0; at < changes; at += 1) await resizeVolume(keeper, 'data', MiB);
    await resizeVolume(keeper, 'data', 2 * MiB);
    await createVolume(keeper, { name: 'last', size: MiB, thick: false, id: '' });
    const events = await eventsUntil(watch, ({ volume }) => volume?.name === 'last');
    const [resync] = events.filter(({ event }) => event === 'resync');
    must(
      resync !== undefined && events.length < changes,
      `it is told to begin anew, in ${events.length} events`,
    );
    const [now] = events.slice(events.indexOf(resync ?? missing())).filter(({ event }) => event === 'volume');
    must(now?.volume?.sizeBytes === 2 * MiB, `all that there is, as it is now: ${JSON.stringify(now)}`);
    must((await eventsUntil(watch, ({ event }) => event === 'synced')).length === 1, 'and that this is all');
    await resizeVolume(keeper, 'last', 2 * MiB);
    const [next] = await eventsUntil(watch, () => true);
    must(next?.volume?.name === 'last' && next.volume.sizeBytes === 2 * MiB, 'changes follow');
    must(reports.length === 0, `nothing went wrong: ${reports.join('; ')}`);
    stream.cancel();
  } finally {
    client.close();
    await listener.close();
    await imports.close();
    remove();
  }
}

/** What comes, with the event that is waited for as the last. */
async function eventsUntil(watch: AsyncIterator<Told>, isLast: (told: Told) => boolean): Promise<Told[]> {
  const events: Told[] = [];
  for (;;) {
    const next = await watch.next();
    if (next.done) throw new Error(`the watch ended after ${JSON.stringify(events)}`);
    events.push(next.value);
    if (isLast(next.value)) return events;
  }
}

function missing(): never {
  throw new Error('it is not there');
}
