import { createHash, randomBytes } from 'node:crypto';
import { mkdtemp, readFile, readdir, rm, stat, truncate, writeFile } from 'node:fs/promises';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { call } from '../support/call.ts';
import { ownHome, removeAll } from '../support/home.ts';
import { scriptInGuest } from '../support/in-guest.ts';
import { refused } from '../support/outcome.ts';
import { header } from '../support/qcow2.ts';
import { toQcow2 } from '../support/qemu-img.ts';

const zfsdev = ownHome();
const name = 'sources';
const MiB = 2 ** 20;
/** With holes, not a whole number of sectors, and some of it packs well. */
const content = Buffer.concat([
  randomBytes(3 * MiB),
  Buffer.alloc(4 * MiB),
  Buffer.alloc(MiB, 'zfsdev '),
  randomBytes(MiB + 333),
]);
const sha256 = (bytes: Buffer): string => createHash('sha256').update(bytes).digest('hex');
let folder: string;
let server: Server;
/** Where the host's server is, as the machine's network has it. */
let web: string;
/** How often held files were asked for, and from where on; what the server calls them. */
const held: string[] = [];
let heldState: string;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'zfsdev-sources-'));
  await writeFile(at('disk.raw'), content);
  convert('v3.qcow2');
  convert('v2.qcow2', '-o', 'compat=0.10');
  convert('packed.qcow2', '-c');
  convert('subclusters.qcow2', '-o', 'extended_l2=on,cluster_size=128k');
  for (const each of ['v3', 'v2', 'packed']) {
    await writeFile(at(`${each}-cut.qcow2`), await readFile(at(`${each}.qcow2`)));
    await truncate(at(`${each}-cut.qcow2`), (await stat(at(`${each}.qcow2`))).size - MiB);
  }
  server = await serve();
  web = `http://10.0.2.2:${(server.address() as AddressInfo).port}`;
  const up = await zfsdev('up', 'zfs-test', '--name', name);
  if (up.exitCode !== 0) throw new Error(up.stderr);
});

afterAll(async () => {
  server.closeAllConnections();
  server.close();
  await removeAll(zfsdev);
  await rm(folder, { recursive: true, force: true });
});

const at = (file: string): string => join(folder, file);

function convert(file: string, ...options: readonly string[]): void {
  toQcow2(at('disk.raw'), at(file), ...options);
}

/** A server of the host with the files, and trouble. */
async function serve(): Promise<Server> {
  const made = createServer((request, response) => {
    const path = request.url ?? '';
    if (path === '/hang') return;
    if (path === '/loop') return void response.writeHead(302, { location: '/loop' }).end();
    if (path === '/inside') return void response.writeHead(302, { location: 'http://127.0.0.1/' }).end();
    if (path.startsWith('/held/')) return void hold(request, response, at(path.slice('/held/'.length)));
    if (path === '/short') {
      response.writeHead(200, { 'content-length': content.length });
      return void response.write(content.subarray(0, MiB), () => response.socket?.destroySoon());
    }
    readFile(at(path.slice(1))).then(
      (bytes) => {
        const from = Number(/^bytes=(\d+)-$/.exec(request.headers.range ?? '')?.[1] ?? 0);
        const range = `bytes ${from}-${bytes.length - 1}/${bytes.length}`;
        response.writeHead(from > 0 ? 206 : 200, {
          'content-length': bytes.length - from,
          etag: `"${sha256(bytes)}"`,
          ...(from > 0 ? { 'content-range': range } : {}),
        });
        // The first answer is cut off in the middle, and the rest asked for.
        if (from > 0) response.end(bytes.subarray(from));
        else response.write(bytes.subarray(0, MiB), () => response.socket?.destroySoon());
      },
      () => response.writeHead(404).end('no'),
    );
  });
  await new Promise<void>((done) => made.listen(0, '127.0.0.1', done));
  return made;
}

/** Sends the first half of a file, and nothing more; whatever is asked after that is sent to its end. */
async function hold(
  { headers: { range, 'if-range': state } }: IncomingMessage,
  response: ServerResponse,
  path: string,
): Promise<void> {
  const bytes = await readFile(path);
  const etag = `"${heldState}"`;
  const from = state === etag ? Number(/^bytes=(\d+)-$/.exec(range ?? '')?.[1] ?? 0) : 0;
  held.push(range ?? 'whole');
  response.writeHead(from > 0 ? 206 : 200, {
    'content-length': bytes.length - from,
    etag,
    ...(from > 0 ? { 'content-range': `bytes ${from}-${bytes.length - 1}/${bytes.length}` } : {}),
  });
  if (held.length === 1) response.write(bytes.subarray(0, bytes.length / 2));
  else response.end(bytes.subarray(from));
}

/** A command that waits for a condition of the shell's. */
const until = (condition: string): string =>
  `timeout 300 sh -c 'until ${condition}; do :; done' >/dev/null 2>&1`;

const guest = (script: string): Promise<string> => scriptInGuest(zfsdev, name, script);

/** Imports a source as a volume, compares it with the content, and deletes it. */
async function expectImported(source: string, ...options: readonly string[]): Promise<void> {
  const words = ['import', 'start', name, 'disk', source, '--as', 'volume', ...options];
  const { exitCode, stderr } = await zfsdev(...words);
  expect({ source, stderr, exitCode }).toMatchObject({ exitCode: 0 });
  const sum = await guest(`head -c ${content.length} /dev/zvol/testpool/disk | sha256sum | cut -d ' ' -f 1`);
  expect(sum).toBe(sha256(content));
  const rest = `tail -c +${content.length + 1} /dev/zvol/testpool/disk | tr -d '\\0' | wc -c`;
  expect(await guest(rest)).toBe('0');
  expect((await zfsdev('volume', 'delete', name, 'disk')).exitCode).toBe(0);
}

const expectRefused = (source: string, words: RegExp, ...options: readonly string[]): Promise<void> =>
  refused(zfsdev('import', 'start', name, 'disk', source, ...options), 'any', words);

async function expectNothingLeft(): Promise<void> {
  expect(await guest('zfs list -H -o name -t all | sort')).toBe('testpool\ntestpool/.zvold');
  expect(await guest('ls /var/lib/zvold/spool /var/lib/zvold/exports 2>/dev/null | grep -v : || true')).toBe(
    '',
  );
}

describe('disks of every kind become volumes', () => {
  it.each(['disk.raw', 'v3.qcow2', 'v2.qcow2', 'packed.qcow2', 'subclusters.qcow2'])(
    '%s, sent and fetched, from where it was cut off, with its checksum',
    async (file) => {
      const sum = ['--sha256', sha256(await readFile(at(file))).toUpperCase()];
      await expectImported(at(file), ...sum);
      await expectImported(`${web}/${file}`, ...sum);
    },
  );

  it('from a file of the machine', async () => {
    expect((await zfsdev('copy', at('packed.qcow2'), `${name}:/root/disk.qcow2`)).exitCode).toBe(0);
    await expectImported('guest:/root/disk.qcow2');
  });

  it('from a server in the machine, if it is told that it may', async () => {
    const script = `require("http").createServer((q,r)=>require("fs").createReadStream("/root/disk.qcow2").pipe(r)).listen(8099,"127.0.0.1")`;
    await guest(`systemd-run --quiet --unit=test-web node -e '${script}'`);
    await guest('timeout 60 sh -c "until grep -q :1FA3 /proc/net/tcp; do :; done"');
    await expectRefused('http://127.0.0.1:8099/', /which imports may not ask/);
    await guest(
      'echo ZVOLD_OPTIONS=--allow-local-addresses >/etc/zfsdev/zvold.conf && systemctl restart zfsdev-zvold',
    );
    await expectImported('http://127.0.0.1:8099/');
    await guest('rm /etc/zfsdev/zvold.conf && systemctl restart zfsdev-zvold && systemctl stop test-web');
  });
});

describe('what is wrong with a source is told, and leaves nothing', () => {
  it.each(['v3-cut.qcow2', 'v2-cut.qcow2', 'packed-cut.qcow2'])('%s, sent and fetched', async (file) => {
    await expectRefused(at(file), /the qcow2 was cut off: it has \d+ bytes/);
    await expectRefused(`${web}/${file}`, /the qcow2 was cut off: it has \d+ bytes/);
    await expectNothingLeft();
  });

  it.each([
    ['/none', /answered 404/],
    ['/short', /was cut off/],
    ['/loop', /leads on and on/],
    ['/inside', /which imports may not ask/],
  ])('%s of a server', async (path, words) => {
    await expectRefused(`${web}${path}`, words);
    await expectNothingLeft();
  });

  it('a size that no volume can have', async () => {
    await writeFile(at('huge.qcow2'), header(2 ** 63, { firstTable: { entries: 1 } }));
    await expectRefused(at('huge.qcow2'), /its size of 9223372036854775808 bytes makes no sense/);
    await expectRefused(`${web}/huge.qcow2`, /its size of 9223372036854775808 bytes makes no sense/);
    await expectNothingLeft();
  });

  it('a wrong checksum', async () => {
    await expectRefused(at('disk.raw'), /was wanted/, '--sha256', '0'.repeat(64));
    await expectRefused(at('v3.qcow2'), /was wanted/, '--sha256', '0'.repeat(64));
    await expectNothingLeft();
  });

  it('a server that hangs, which is cancelled', async () => {
    const start = ['import', 'start', name, 'disk', `${web}/hang`, '--no-wait', '--id', 'hangs'];
    expect((await zfsdev(...start)).exitCode).toBe(0);
    expect((await zfsdev('import', 'cancel', name, 'hangs')).stdout).toBe(
      'hangs is cancelled, and left nothing',
    );
    await expectNothingLeft();
  });

  it('more than the pool has room for, well before it is full', async () => {
    await guest('zfs create -o mountpoint=none -o reservation=64M testpool/filler');
    await guest('head -c 64M /dev/urandom >/root/large.raw');
    await expectRefused('guest:/root/large.raw', /no room left in the pool testpool/);
    await guest('qemu-img convert -O qcow2 /root/large.raw /root/large.qcow2 && rm /root/large.raw');
    await expectRefused('guest:/root/large.qcow2', /no room left in the pool testpool|the pool was full/);
    await guest('rm /root/large.qcow2 && zfs destroy testpool/filler && zpool sync testpool');
    await expectNothingLeft();
    await expectImported(at('v3.qcow2'));
  });
});

describe('a volume manager that is killed', () => {
  it.each([
    ['disk.raw', 'goes on with it', 'first'],
    ['v3.qcow2', 'goes on with it', 'first'],
    ['disk.raw', 'begins anew, as the server has another one by now', 'second'],
  ])('in the download of %s %s', async (file, _, state) => {
    [heldState, held.length] = ['first', 0];
    const id = `${file}-${state}`;
    const source = `${web}/held/${file}`;
    const words = ['--id', id, '--sha256', sha256(await readFile(at(file)))];
    const waiting = zfsdev.begin('import', 'start', name, 'disk', source, '--as', 'volume', ...words);
    // Some of it is safe.
    await guest(until(`grep -q kept /var/lib/zvold/imports/${id}.json`));
    heldState = state;
    await guest('systemctl kill --signal=KILL zfsdev-zvold');
    expect(await waiting.result).toMatchObject({ exitCode: 0 });
    // The same request again is that for the same import.
    await expectImported(source, ...words);
    expect(held.slice(0, 2)).toEqual(['whole', expect.stringMatching(/^bytes=[1-9]\d*-$/)]);
    expect(held.slice(2)).toEqual(state === 'first' ? [] : ['whole']);
    const log = await guest(`journalctl -u zfsdev-zvold -o cat | grep 'the import ${id} '`);
    expect(log).toMatch(/ was cut off and goes on: [1-9]\d* of its \d+ bytes are safe$/m);
    expect(log.includes('begins anew')).toBe(state === 'second');
    await expectNothingLeft();
  });

  it('in an export leaves nothing once it is back, and nothing on the host', async () => {
    expect((await zfsdev('volume', 'create', name, 'data', '--size', '256MiB')).exitCode).toBe(0);
    await guest('head -c 16M /dev/urandom | dd of=/dev/zvol/testpool/data bs=1M conv=fsync status=none');
    for (const file of ['out.raw', 'out.qcow2']) {
      const begun = until('zfs list -H -o name | grep -q export-');
      const killer = zfsdev.begin(
        'exec',
        name,
        '--',
        'sh',
        '-c',
        `${begun} && systemctl kill --signal=KILL zfsdev-zvold`,
      );
      expect((await zfsdev('volume', 'export', name, 'data', at(file))).exitCode).not.toBe(0);
      expect(await killer.result).toMatchObject({ exitCode: 0 });
      expect((await readdir(folder)).filter((each) => each.includes('out.'))).toEqual([]);
      // The next one tidies up as it starts.
      expect((await zfsdev('volume', 'list', name)).exitCode).toBe(0);
      await guest(until('! zfs list -H -o name -t all | grep export- && ! ls /var/lib/zvold/exports/*'));
    }
    expect((await zfsdev('volume', 'export', name, 'data', at('out.raw'))).exitCode).toBe(0);
    const sum = await guest("sha256sum </dev/zvol/testpool/data | cut -d ' ' -f 1");
    expect(call('sha256sum', at('out.raw')).split(' ')[0]).toBe(sum);
    expect((await zfsdev('volume', 'delete', name, 'data')).exitCode).toBe(0);
    await expectNothingLeft();
  });
});
