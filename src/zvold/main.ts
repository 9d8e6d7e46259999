// zvold: manages the zvols of one pool for clients that speak gRPC. Bundled on its own; Node is all it needs.
import './older-node.ts';
import { parseArgs } from 'node:util';
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { runCommand } from './command.ts';
import { ZvolError, wordsOf } from './errors.ts';
import { Exports } from './export.ts';
import { Hub } from './hub.ts';
import { Imports } from './imports.ts';
import type { Keeper } from './keeper.ts';
import { Locks } from './locks.ts';
import { thisMachine } from './machine.ts';
import { listen, type Tcp } from './server.ts';
import { Zfs } from './zfs.ts';

declare const ZFSDEV_VERSION: string | undefined;

const { values } = parseArgs({
  options: {
    pool: { type: 'string' },
    socket: { type: 'string', default: '/run/zfsdev/zvold.sock' },
    folder: { type: 'string', default: '/var/lib/zvold' },
    'import-folder': { type: 'string', multiple: true, default: [] },
    'allow-local-addresses': { type: 'boolean', default: false },
    'largest-import': { type: 'string', default: String(2 ** 44) },
    listen: { type: 'string' },
    certificate: { type: 'string' },
    key: { type: 'string' },
    'client-ca': { type: 'string' },
    'token-file': { type: 'string' },
  },
});

const report = (words: string): void => console.error(words);

function tcpOf(): Tcp | undefined {
  const { listen: address, certificate, key } = values;
  if (address === undefined) return undefined;
  if (certificate === undefined || key === undefined)
    throw new Error('--listen wants --certificate and --key: what goes over a network is encrypted');
  return { address, certificate, key, clientAuthority: values['client-ca'], tokenFile: values['token-file'] };
}

/** systemd hands the socket over as the third file. */
function socketOf(): string | { fd: number } {
  if (process.env['LISTEN_FDS'] === '1' && process.env['LISTEN_PID'] === String(process.pid))
    return { fd: 3 };
  mkdirSync(join(values.socket, '..'), { recursive: true, mode: 0o700 });
  return values.socket;
}

/** Tidies up as soon as the pool can be asked, which may be later than the start. */
async function recoverPatiently(imports: Imports, exports: Exports): Promise<void> {
  for (;;) {
    try {
      for (const line of await imports.recover()) report(line);
      for (const line of await exports.recover()) report(line);
      return;
    } catch (error) {
      if (!(error instanceof ZvolError) || error.code !== 'UNAVAILABLE') {
        report(`what an earlier run left could not be tidied up: ${wordsOf(error)}`);
        return;
      }
      await new Promise((resolve) => setTimeout(resolve, 2_000).unref());
    }
  }
}

async function main(): Promise<void> {
  const { pool, folder } = values;
  if (pool === undefined) throw new Error('--pool NAME is missing');
  mkdirSync(folder, { recursive: true, mode: 0o700 });
  const keeper: Keeper = {
    pool,
    zfs: new Zfs(runCommand),
    machine: thisMachine,
    locks: new Locks(),
    hub: new Hub(),
  };
  const policy = {
    folders: values['import-folder'],
    allowLocalAddresses: values['allow-local-addresses'],
    largest: Number(values['largest-import']),
  };
  const imports = new Imports(keeper, { command: runCommand, policy, folder, atOnce: 2, report });
  const exports = new Exports(keeper, { command: runCommand, folder });
  const { stdout } = await runCommand(['zfs', 'version'], { deadline: 30_000 });
  const openzfs = /zfs-kmod-(\S+)/.exec(stdout)?.[1] ?? '';
  const version = typeof ZFSDEV_VERSION === 'string' ? ZFSDEV_VERSION : '0.0.0';
  const daemon = { keeper, imports, exports, version, openzfs, report };
  const recovery = recoverPatiently(imports, exports);
  const listener = await listen(daemon, { socket: socketOf(), tcp: tcpOf() });
  report(`managing the pool ${pool}`);
  for (const signal of ['SIGTERM', 'SIGINT'] as const) {
    process.once(signal, () => {
      void Promise.all([listener.close(), imports.close()]).finally(() => process.exit(0));
    });
  }
  await recovery;
}

main().catch((error: unknown) => {
  report(wordsOf(error));
  process.exit(1);
});
