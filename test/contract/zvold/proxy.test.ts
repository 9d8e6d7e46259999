import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PassThrough, type Duplex } from 'node:stream';
import { text } from 'node:stream/consumers';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { openProxy, type Proxy } from '../../../src/zvol/proxy.ts';

let folder: string;
let proxy: Proxy;
/** What leads to the guest. */
let lead: () => Promise<Duplex>;

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'zfsdev-proxy-'));
  proxy = await openProxy(() => lead(), join(folder, 's'));
});
afterEach(async () => {
  await proxy.close();
  await rm(folder, { recursive: true, force: true });
});

it('tells why the last connection could not be made, and no more once one could', async () => {
  lead = () => Promise.reject(new Error('the machine is away'));
  expect(await text(connect(proxy.path))).toBe('');
  expect(proxy.problem()).toMatchObject({ message: 'the machine is away' });
  lead = () => Promise.resolve(new PassThrough());
  const socket = connect(proxy.path);
  socket.write('there');
  expect(String((await once(socket, 'data'))[0])).toBe('there');
  expect(proxy.problem()).toBeUndefined();
  socket.destroy();
});

it('lets go of the way to the guest if its client was gone before that stood', async () => {
  const guest = new PassThrough();
  let arrive: () => void = () => undefined;
  const asked = new Promise<void>((resolve) => {
    lead = () => {
      resolve();
      return new Promise((stands) => (arrive = () => stands(guest)));
    };
  });
  const socket = connect(proxy.path);
  await asked;
  socket.destroy();
  // Its other end is closed as well by then.
  await proxy.close();
  const closed = once(guest, 'close');
  arrive();
  await closed;
  expect(guest.destroyed).toBe(true);
  proxy = { ...proxy, close: () => Promise.resolve() };
});
