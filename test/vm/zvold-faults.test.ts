import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { parseName } from '../../src/core/names.ts';
import type { Channel } from '../../src/guest/channel.ts';
import { openContext } from '../../src/host/open-context.ts';
import { channelTo } from '../../src/vm/lifecycle.ts';
import type { ImportDescription } from '../../src/zvol/messages.ts';
import { connect, type ZvoldClient } from '../../src/zvol/index.ts';
import { fileServer } from '../fakes/file-server.ts';
import { call } from '../support/call.ts';
import { ownHome, removeAll } from '../support/home.ts';

const zfsdev = ownHome();
const name = 'vols';
const MiB = 2 ** 20;
let folder: string;
let zvold: ZvoldClient;
let channel: Channel;
const never = new AbortController().signal;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'zfsdev-zvold-'));
  const up = await zfsdev('up', 'zfs-test', '--name', name);
  if (up.exitCode !== 0) throw new Error(up.stderr);
  zvold = await connect(name, { home: zfsdev.home });
  const env = { ...process.env, ZFSDEV_HOME: zfsdev.home };
  const ctx = openContext({ env, emit: () => undefined, signal: never });
  channel = await channelTo(ctx, parseName(name));
});

afterAll(async () => {
  await Promise.all([zvold.close(), channel.close()]);
  await removeAll(zfsdev);
  await rm(folder, { recursive: true, force: true });
});

/** In the guest, without a zfsdev of its own each time: there are hundreds of these. */
async function guest(script: string): Promise<string> {
  const { exitCode, stdout, stderr } = await channel.exec(['sh', '-c', script], {
    deadline: 300_000,
    signal: never,
  });
  expect({ stderr, exitCode }).toEqual({ stderr: '', exitCode: 0 });
  return stdout.trim();
}

/** Everything in the pool, with what zvold has written on it. */
const poolState = (): Promise<string> =>
  guest('zfs list -H -t all -o name,volsize,zfsdev:import,zfsdev:template -s name');

async function* pieces(content: Buffer): AsyncGenerator<Buffer> {
  for (let at = 0; at < content.length; at += MiB)
    yield await Promise.resolve(content.subarray(at, at + MiB));
}

const asTemplate = (name: string): ImportDescription => ({ name, target: 'IMPORT_TARGET_TEMPLATE' });
const asVolume = (name: string): ImportDescription => ({ name, target: 'IMPORT_TARGET_VOLUME' });

describe('zvold, killed behind each change that an operation makes', () => {
  // In the place of the real program: behind the Nth change since the file was written, zvold is gone.
  const shim = `#!/bin/sh
case $1 in create|clone|snapshot|set|inherit|rename|destroy|rollback) ;; *) exec /root/zfs "$@" ;; esac
[ -f /run/kill-at ] || exec /root/zfs "$@"
/root/zfs "$@"
status=$?
left=$(($(cat /run/kill-at) - 1))
echo "$left" >/run/kill-at
[ "$left" -ne 0 ] || kill -9 "$PPID"
exit "$status"
`;

  beforeAll(async () => {
    await writeFile(join(folder, 'zfs'), shim, { mode: 0o755 });
    expect(await zfsdev('copy', join(folder, 'zfs'), `${name}:/root/shim`)).toMatchObject({
      exitCode: 0,
    });
    await guest('cp /usr/sbin/zfs /root/zfs && mount --bind /root/shim /usr/sbin/zfs');
    await zvold.createVolume({ name: 'data', sizeBytes: 4 * MiB, id: 'data' });
    await zvold.createSnapshot('data', 'base', 'base');
    await zvold.createTemplate({ name: 'base', volume: 'data', snapshot: 'base', id: 'template' });
  });

  afterAll(() => guest('umount /usr/sbin/zfs; rm -f /run/kill-at; zfs destroy -R testpool/data'));

  const raw = randomBytes(2 * MiB);
  const small = (name: string): Promise<unknown> => zvold.createVolume({ name, sizeBytes: MiB, id: name });
  type Operation = readonly [what: string, run: () => Promise<unknown>, undo: () => Promise<unknown>];
  const operations: readonly Operation[] = [
    ['create', () => small('a'), () => zvold.deleteVolume('a')],
    [
      'clone, larger',
      () => zvold.cloneTemplate({ template: 'base', name: 'c', sizeBytes: 8 * MiB, id: 'c' }),
      () => zvold.deleteVolume('c'),
    ],
    ['snapshot', () => zvold.createSnapshot('data', 's', 's'), () => zvold.deleteSnapshot('data', 's')],
    [
      'import to a template',
      () => zvold.upload(asTemplate('t'), pieces(raw)),
      () => zvold.deleteTemplate('t'),
    ],
    ['import to a volume', () => zvold.upload(asVolume('v'), pieces(raw)), () => zvold.deleteVolume('v')],
    ['rename', () => zvold.renameVolume('data', 'moved'), () => zvold.renameVolume('moved', 'data')],
    ['delete', () => zvold.deleteVolume('d'), () => small('d')],
  ];

  it.each(operations)('%s: it is done or undone, and can be asked for again', async (what, run, undo) => {
    if (what === 'delete') await undo();
    await run();
    const after = await poolState();
    await undo();
    const before = await poolState();
    for (let at = 1; ; at += 1) {
      await guest(`echo ${at} >/run/kill-at`);
      const error = await run().then(
        () => undefined,
        (reason: unknown) => reason,
      );
      // Fewer changes than that: every one had its turn.
      if (Number(await guest('cat /run/kill-at; rm -f /run/kill-at')) > 0) {
        expect(error).toBeUndefined();
        await undo();
        break;
      }
      expect(error, `${what}, change ${at}`).toMatchObject({ reason: 'guest' });
      // The next question finds a new daemon, which tidies up.
      await expect
        .poll(
          async () => {
            await zvold.volumes();
            return [before, after].includes(await poolState());
          },
          { timeout: 60_000 },
        )
        .toBe(true);
      const done = (await poolState()) === after;
      await run().catch((reason: unknown) => {
        // What was done already says so.
        if (!done) throw reason;
        expect(reason).toMatchObject({
          reason: expect.stringMatching(/^(already-exists|not-found)$/) as string,
        });
      });
      expect(await poolState(), `${what} again, after change ${at}`).toBe(after);
      await undo();
    }
    expect(await poolState()).toBe(before);
  });
});

describe('a pool without room', () => {
  const junk = randomBytes(48 * MiB);

  beforeAll(() =>
    guest(
      'zfs create -o mountpoint=none -o reservation=$(($(zfs get -Hp -o value available testpool) - 16777216)) testpool/ballast',
    ),
  );
  afterAll(() => guest('zfs destroy testpool/ballast'));

  it('takes no thick volume, and no import that does not fit, and has nothing of them', async () => {
    const before = await poolState();
    await expect(zvold.createVolume({ name: 'fat', sizeBytes: 64 * MiB, thick: true })).rejects.toMatchObject(
      {
        reason: 'no-space',
        data: { code: 'RESOURCE_EXHAUSTED' },
      },
    );
    const ended = await zvold.upload(asTemplate('fat'), pieces(junk));
    expect(ended).toMatchObject({
      state: 'IMPORT_STATE_FAILED',
      error: expect.stringMatching(/full|space/) as string,
    });
    expect(await poolState()).toBe(
      before.includes('.zvold') ? before : `${before}\ntestpool/.zvold\t-\t-\t-`,
    );
  });

  it('takes no snapshot of a thick volume whose reservation it can not keep', async () => {
    await zvold.createVolume({ name: 'thick', sizeBytes: 12 * MiB, thick: true });
    await guest(
      'head -c 4M /dev/urandom | dd of=/dev/zvol/testpool/thick bs=1M oflag=direct iflag=fullblock status=none',
    );
    await expect(zvold.createSnapshot('thick', 'no')).rejects.toMatchObject({ reason: 'no-space' });
    expect((await zvold.volume('thick')).snapshots).toEqual([]);
    await zvold.deleteVolume('thick');
  });
});

describe('names, sizes and states that can not be', () => {
  beforeAll(() => zvold.createVolume({ name: 'here', sizeBytes: 4 * MiB }));
  afterAll(() => zvold.deleteVolume('here'));

  it.each(['a/b', 'a@b', 'a b', '', 'x'.repeat(256), '-x', '../x', 'ünï'])(
    'refuses the name "%s"',
    async (bad) => {
      await expect(zvold.createVolume({ name: bad, sizeBytes: MiB })).rejects.toMatchObject({
        reason: 'usage',
      });
    },
  );

  it('refuses a name that is taken, one that is not there, and a smaller size; rounds one that is no whole block', async () => {
    await expect(zvold.createVolume({ name: 'here', sizeBytes: MiB })).rejects.toMatchObject({
      reason: 'already-exists',
    });
    await expect(zvold.volume('nowhere')).rejects.toMatchObject({ reason: 'not-found' });
    await expect(zvold.resizeVolume('here', MiB)).rejects.toMatchObject({ reason: 'wrong-state' });
    expect(await zvold.resizeVolume('here', 4 * MiB + 1)).toMatchObject({ sizeBytes: 4 * MiB + 16 * 1024 });
    await expect(zvold.createVolume({ name: 'huge', sizeBytes: 2 ** 53 - 1 })).rejects.toThrow();
  });

  it('tells who has a volume open, and leaves it alone', async () => {
    await guest(
      '(exec 3</dev/zvol/testpool/here; touch /run/open; while [ -e /run/open ]; do sleep 0.2; done) >/dev/null 2>&1 & while [ ! -e /run/open ]; do sleep 0.1; done',
    );
    await expect(zvold.deleteVolume('here')).rejects.toMatchObject({
      reason: 'wrong-state',
      message: expect.stringMatching(/process \d+|sh/) as string,
    });
    await guest('rm /run/open');
    await expect
      .poll(
        () =>
          guest('fuser -s /dev/zvol/testpool/here 2>/dev/null && echo open || echo closed').catch(
            () => 'closed',
          ),
        { timeout: 30_000 },
      )
      .toBe('closed');
  });
});

describe('sources that are not what they seem', () => {
  const raw = Buffer.concat([randomBytes(MiB), Buffer.alloc(2 * MiB), randomBytes(MiB)]);

  async function ends(source: Buffer | string): Promise<{ state: string; error: string }> {
    const description: ImportDescription = { name: 'source', target: 'IMPORT_TARGET_VOLUME' };
    if (typeof source !== 'string') return zvold.upload(description, pieces(source));
    const { id } = await zvold.startImport(description, source);
    await expect.poll(async () => (await zvold.import(id)).completedAt, { timeout: 240_000 }).not.toBeNull();
    return zvold.import(id);
  }

  async function qcow2(...options: string[]): Promise<Buffer> {
    const { readFile } = await import('node:fs/promises');
    await writeFile(join(folder, 'in.raw'), raw);
    call(
      'qemu-img',
      'convert',
      '-f',
      'raw',
      '-O',
      'qcow2',
      ...options,
      join(folder, 'in.raw'),
      join(folder, 'in.qcow2'),
    );
    return readFile(join(folder, 'in.qcow2'));
  }

  const sum = (): Promise<string> => guest('sha256sum </dev/zvol/testpool/source | cut -d " " -f 1');
  const expected = async (): Promise<string> => {
    const { createHash } = await import('node:crypto');
    return createHash('sha256').update(raw).digest('hex');
  };

  it.each([
    ['compressed', ['-c']],
    ['of version 2', ['-o', 'compat=0.10']],
  ])('takes a qcow2 %s', async (_, options) => {
    expect(await ends(await qcow2(...options))).toMatchObject({ state: 'IMPORT_STATE_COMPLETED' });
    expect(await sum()).toBe(await expected());
    await zvold.deleteVolume('source');
  });

  it('refuses a qcow2 that is cut off, one that claims 2^63 bytes, and one on a backing file', async () => {
    const whole = await qcow2();
    expect(await ends(whole.subarray(0, whole.length / 2))).toMatchObject({ state: 'IMPORT_STATE_FAILED' });
    const vast = Buffer.from(whole);
    vast.writeBigUInt64BE(2n ** 63n, 24);
    expect(await ends(vast)).toMatchObject({ state: 'IMPORT_STATE_FAILED' });
    const backed = Buffer.from(whole);
    backed.writeBigUInt64BE(1024n, 8);
    backed.writeUInt32BE(11, 16);
    backed.write('/etc/shadow', 1024);
    expect(await ends(backed)).toMatchObject({ error: expect.stringContaining('backing file') as string });
    await expect(zvold.volume('source')).rejects.toMatchObject({ reason: 'not-found' });
  });

  it('takes a raw disk that is no whole sector', async () => {
    expect(await ends(raw.subarray(0, 1_000_001))).toMatchObject({ state: 'IMPORT_STATE_COMPLETED' });
    expect(await guest('head -c 1000001 /dev/zvol/testpool/source | wc -c')).toBe('1000001');
    await zvold.deleteVolume('source');
  });

  it('takes what a web server has, and fails in words where that has trouble', async () => {
    const server = await fileServer({ content: raw });
    // The host, as its guests see it.
    const url = server.url.replace('127.0.0.1', '10.0.2.2');
    try {
      expect(await ends(url)).toMatchObject({ state: 'IMPORT_STATE_COMPLETED' });
      expect(await sum()).toBe(await expected());
      await zvold.deleteVolume('source');
      server.behave({ content: raw, status: 404 });
      expect(await ends(url)).toMatchObject({
        state: 'IMPORT_STATE_FAILED',
        error: expect.stringContaining('404') as string,
      });
      server.behave({ content: raw, announced: raw.length + 512, etag: null, ranges: false });
      expect(await ends(url)).toMatchObject({ state: 'IMPORT_STATE_FAILED' });
      server.behave({ content: raw, stallAfter: MiB });
      const { id } = await zvold.startImport({ name: 'source', target: 'IMPORT_TARGET_VOLUME' }, url);
      await expect
        .poll(async () => (await zvold.import(id)).doneBytes, { timeout: 60_000 })
        .toBeGreaterThan(0);
      expect(await zvold.cancelImport(id)).toEqual({ cancelled: true });
    } finally {
      await server.close();
    }
    const loop = createServer((_, response) => response.writeHead(302, { location: '/again' }).end()).listen(
      0,
      '127.0.0.1',
    );
    await once(loop, 'listening');
    const { port } = loop.address() as AddressInfo;
    expect(await ends(`http://10.0.2.2:${port}/`)).toMatchObject({
      state: 'IMPORT_STATE_FAILED',
      error: expect.stringMatching(/redirect|leads/) as string,
    });
    loop.close();
    expect(
      await guest('zfs list -H -o name -r testpool/.zvold; ls /var/lib/zvold/spool 2>/dev/null || true'),
    ).toBe('testpool/.zvold');
  });
});

describe('many at once', () => {
  it('64 clients lose nothing, and a watcher who reads late is told of every volume', async () => {
    const clients = await Promise.all(Array.from({ length: 8 }, () => connect(name, { home: zfsdev.home })));
    const stop = new AbortController();
    const told = new Set<string>();
    const watching = (async () => {
      for await (const { event, volume } of zvold.watch(stop.signal)) {
        if (event === 'volume' && volume) told.add(volume.name);
        if (event !== 'volume') continue;
        if (told.size === 64) return;
        await new Promise((resolve) => setTimeout(resolve, 20));
      }
    })();
    const names = Array.from({ length: 64 }, (_, index) => `many-${index}`);
    const made = await Promise.all(
      names.map((each, index) =>
        (clients[index % 8] ?? zvold).createVolume({ name: each, sizeBytes: MiB, id: each }),
      ),
    );
    expect(new Set(made.map(({ id }) => id)).size).toBe(64);
    expect((await zvold.volumes()).map((each) => each.name)).toEqual([...names].sort());
    await watching;
    stop.abort();
    // The same name from several at once is made once.
    const same = await Promise.allSettled(
      clients.map((client) => client.createVolume({ name: 'one', sizeBytes: MiB })),
    );
    expect(same.filter(({ status }) => status === 'fulfilled')).toHaveLength(1);
    await Promise.all(
      [...names, 'one'].map((each, index) => (clients[index % 8] ?? zvold).deleteVolume(each)),
    );
    expect(await zvold.volumes()).toEqual([]);
    await Promise.all(clients.map((client) => client.close()));
  });
});

describe('a pool that stands still', () => {
  it('is answered for at once, and is there again when it goes on', async () => {
    await zvold.createVolume({ name: 'still', sizeBytes: 64 * MiB });
    // The pool's files are sparse and lie in the root file system: without room there, they take no more.
    await guest(
      'fallocate -l $(df --output=avail -B1 / | tail -n 1) /fill || true; dd if=/dev/zero of=/fill2 bs=4k 2>/dev/null || true; sync',
    );
    await guest(
      '(dd if=/dev/urandom of=/dev/zvol/testpool/still bs=1M count=48 oflag=direct >/dev/null 2>&1 &) ; true',
    );
    await expect
      .poll(() => guest('zpool list -H -o health testpool'), { timeout: 120_000 })
      .toBe('SUSPENDED');
    await expect(zvold.createVolume({ name: 'no', sizeBytes: MiB })).rejects.toMatchObject({
      data: { code: 'UNAVAILABLE' },
    });
    await guest('rm -f /fill /fill2; zpool clear testpool');
    await expect
      .poll(() => guest('zpool list -H -o health testpool'), { timeout: 120_000 })
      .not.toBe('SUSPENDED');
    expect((await zvold.volumes()).map((each) => each.name)).toEqual(['still']);
    await expect
      .poll(() => zvold.deleteVolume('still').then(() => 'gone', String), { timeout: 120_000 })
      .toBe('gone');
  });
});
