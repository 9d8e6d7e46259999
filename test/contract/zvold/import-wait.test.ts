import { randomBytes } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import type { Session } from '../../../src/commands/session.ts';
import { startImport } from '../../../src/commands/zvol-transfer.ts';
import type { ZvoldClient } from '../../../src/zvol/api.ts';
import { clientOver } from '../../../src/zvol/client.ts';
import type { ImportJob } from '../../../src/zvold/jobs.ts';
import { listen, type Listener } from '../../../src/zvold/server.ts';
import { fileServer, type FileServer } from '../../fakes/file-server.ts';
import { testContext, type TestContext } from '../../support/context.ts';
import { wanted } from './import-scene.ts';
import { recovered, ZvoldHouse } from './support.ts';

const MiB = 2 ** 20;
const content = randomBytes(3 * MiB);
let house: ZvoldHouse;
let listener: Listener;
let server: FileServer;
let client: ZvoldClient;
let ctx: TestContext;
let session: Session;
let user: AbortController;
const answers: object[] = [];
const said: string[] = [];

beforeEach(async () => {
  house = await ZvoldHouse.open();
  server = await fileServer({ content, stallAfter: 1.5 * MiB });
  listener = await listening();
  user = new AbortController();
  ctx = await testContext({ signal: user.signal });
  const proxy = { path: join(house.folder, 's'), problem: () => undefined, close: () => Promise.resolve() };
  client = clientOver(proxy, 'test', ctx.signal);
  answers.length = 0;
  said.length = 0;
  const unexpected = (): never => {
    throw new Error('nothing of the kind was expected');
  };
  session = {
    ctx,
    json: true,
    paint: (_, text) => text,
    width: 80,
    answer: (document, words) => {
      answers.push(document);
      said.push(words());
      return Promise.resolve();
    },
    write: unexpected,
    fail: unexpected,
    end: unexpected,
  };
});

afterEach(async () => {
  await client.close();
  await listener.close();
  await house.close();
  await server.close();
  await ctx.remove();
});

function listening(): Promise<Listener> {
  const { keeper, imports, exports, folder } = house;
  const daemon = { keeper, imports, exports, version: '', openzfs: '', report: () => undefined };
  return listen(daemon, { socket: join(folder, 's') });
}

const begin = (): Promise<void> =>
  startImport({ session, client, instance: 'test', words: ['disk', server.url], options: { id: 'mine' } });

/** Waits until some of it is safe, and ends the daemon. */
async function end(): Promise<void> {
  const journal = join(house.folder, 'state', 'imports', 'mine.json');
  const kept = async (): Promise<unknown> =>
    (JSON.parse(await readFile(journal, 'utf8').catch(() => '{}')) as Partial<ImportJob>).kept?.bytes;
  await expect.poll(kept, { timeout: 30_000 }).toBe(MiB);
  await listener.close();
}

it('who waits for a download waits on when the daemon is another one', async () => {
  const waiting = begin();
  await end();
  house.restart();
  server.behave({ content });
  listener = await listening();
  await recovered(house.imports);
  await waiting;
  expect(answers).toMatchObject([{ import: { id: 'mine', state: 'IMPORT_STATE_COMPLETED' } }]);
  expect(server.requests).toHaveLength(2);
});

it('who waits is told where it came to an end without the daemon', async () => {
  const waiting = begin();
  await end();
  house.restart();
  server.behave({ content, status: 404 });
  listener = await listening();
  await recovered(house.imports);
  await expect(waiting).rejects.toMatchObject({
    reason: 'guest',
    message: expect.stringMatching(/^the import of disk failed: .* answered 404$/) as string,
  });
});

it('who does not wait is told how to ask for it, also where it was through before', async () => {
  server.behave({ content });
  const options = { id: 'mine', wait: false };
  const start = (): Promise<void> =>
    startImport({ session, client, instance: 'test', words: ['disk', server.url], options });
  await start();
  expect(await house.ended('mine')).toMatchObject({ state: 'completed' });
  await start();
  expect(said).toEqual([
    'disk is being imported: zfsdev import get test mine\n',
    'disk was imported before: zfsdev import get test mine\n',
  ]);
});

it('an import that is called off before it began does not begin', async () => {
  let goOn = (): void => undefined;
  const asked = new Promise<void>((resolve) => {
    house.fake.before = () => {
      resolve();
      return new Promise<void>((done) => (goOn = done));
    };
  });
  const interrupted = expect(begin()).rejects.toMatchObject({ reason: 'interrupted' });
  await asked;
  user.abort();
  await interrupted;
  house.fake.before = () => undefined;
  // The same asked for behind it is another request, and begins.
  const again = await house.imports.start(wanted({ name: 'other', id: 'mine' }), server.url);
  goOn();
  await expect.poll(() => house.fake.calls.length).toBeGreaterThan(1);
  expect(house.imports.list(true)).toMatchObject([{ id: again.id, name: 'other' }]);
  expect(await house.imports.cancel('mine')).toBe(true);
});

it('an import that is called off while its answer is on its way is ended, whoever made its id', async () => {
  const told = house.keeper.hub.watch(() => Promise.resolve([]), ctx.signal);
  expect((await told.next()).value).toMatchObject({ kind: 'synced' });
  const started = startImport({
    session,
    client,
    instance: 'test',
    words: ['disk', server.url],
    options: {},
  });
  const interrupted = expect(started).rejects.toMatchObject({ reason: 'interrupted' });
  expect((await told.next()).value).toMatchObject({ kind: 'import', job: { state: 'pending' } });
  user.abort();
  await interrupted;
  expect(house.imports.list(true)).toMatchObject([{ name: 'disk', state: 'cancelled' }]);
  await house.expectNothingLeft();
});
