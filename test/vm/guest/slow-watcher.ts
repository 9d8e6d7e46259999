// A watcher that does not read, and falls behind what happens on a real pool; run inside a machine.
import { setImmediate as turn } from 'node:timers/promises';
import type { Watched } from '../../../src/zvol/messages.ts';
import { clientOver } from '../../../src/zvol/client.ts';
import { runCommand } from '../../../src/zvold/command.ts';
import { Exports } from '../../../src/zvold/export.ts';
import { Imports } from '../../../src/zvold/imports.ts';
import { listen } from '../../../src/zvold/server.ts';
import { createVolume, resizeVolume } from '../../../src/zvold/volumes.ts';
import { folder, keeperOf, MiB, must, scratchPool } from './scratch-pool.ts';

/** Far more than lies between a daemon and its client, and more than waits for it: the pool's own would take minutes. */
const changes = 5000;

/** Has a watcher sleep while a volume changes again and again. */
export async function slowWatcher(): Promise<void> {
  const remove = scratchPool('slow', folder, 128 * MiB);
  const keeper = keeperOf('slow');
  const reports: string[] = [];
  const report = (words: string): void => void reports.push(words);
  const place = { command: runCommand, folder: `${folder}/slow`, report };
  const policy = { folders: [], allowLocalAddresses: false, largest: 2 ** 30 };
  const imports = new Imports(keeper, { ...place, policy, atOnce: 1 });
  const exports = new Exports(keeper, place);
  const daemon = { keeper, imports, exports, version: '', openzfs: '', report };
  const path = `${folder}/slow.sock`;
  const listener = await listen(daemon, { socket: path });
  const stop = new AbortController();
  const proxy = { path, problem: () => undefined, close: () => Promise.resolve() };
  const client = clientOver(proxy, 'this machine', stop.signal);
  try {
    const volume = await createVolume(keeper, { name: 'data', size: MiB, thick: false, id: '' });
    const watch = client.watch(stop.signal)[Symbol.asyncIterator]();
    const first = await eventsUntil(watch, ({ event }) => event === 'synced');
    must(first.length === 2, `it is told of one volume: ${JSON.stringify(first)}`);
    for (let at = 0; at < changes; at += 1) {
      keeper.hub.tell({ kind: 'volume', volume });
      await turn();
    }
    await resizeVolume(keeper, 'data', 2 * MiB);
    await createVolume(keeper, { name: 'last', size: MiB, thick: false, id: '' });
    const events = await eventsUntil(watch, (told) => told.volume?.name === 'last');
    const again = events.findIndex(({ event }) => event === 'resync');
    must(
      again >= 0 && again < changes,
      `it is told to begin anew, in ${events.length} events, at that of number ${again}`,
    );
    const now = events.slice(again).find((told) => told.volume?.name === 'data');
    must(now?.volume?.sizeBytes === 2 * MiB, `all that there is, as it is now: ${JSON.stringify(now)}`);
    const rest = await eventsUntil(watch, ({ event }) => event === 'synced');
    must(rest.length === 1, `and that this is all: ${JSON.stringify(rest)}`);
    await resizeVolume(keeper, 'last', 2 * MiB);
    const [next] = await eventsUntil(watch, () => true);
    must(next?.volume?.name === 'last' && next.volume.sizeBytes === 2 * MiB, 'changes follow');
    must(reports.length === 0, `nothing went wrong: ${reports.join('; ')}`);
  } finally {
    stop.abort();
    await client.close();
    await listener.close();
    await imports.close();
    remove();
  }
}

/** What comes, with the event that is waited for as the last. */
async function eventsUntil(
  watch: AsyncIterator<Watched>,
  isLast: (told: Watched) => boolean,
): Promise<Watched[]> {
  const events: Watched[] = [];
  for (;;) {
    const next = await watch.next();
    if (next.done) throw new Error(`the watch ended after ${JSON.stringify(events.slice(-3))}`);
    events.push(next.value);
    if (isLast(next.value)) return events;
  }
}
