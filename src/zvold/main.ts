// zvold: manages the zvols of one pool for clients that speak gRPC. Bundled on its own; Node is all it needs.
import './older-node.ts';
import { parseArgs } from 'node:util';
import { mkdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { wordsOf } from './errors.ts';
import { Exports } from './export.ts';
import { Imports } from './imports.ts';
import { newKeeper } from './keeper.ts';
import { thisMachine } from './machine.ts';
import { Recovery } from './recovery.ts';
import { listen, type Tcp } from './server.ts';
import { Standby } from './standby.ts';

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

function bytesOf(text: string): number {
  const bytes = /^\d+$/.test(text) ? Number(text) : 0;
  if (Number.isSafeInteger(bytes) && bytes > 0) return bytes;
  throw new Error(`--largest-import ${text}: give a number of bytes`);
}

/** systemd hands the socket over as the third file. */
function socketOf(): string | { fd: number } {
  if (process.env['LISTEN_FDS'] === '1' && process.env['LISTEN_PID'] === String(process.pid))
    return { fd: 3 };
  mkdirSync(join(values.socket, '..'), { recursive: true, mode: 0o700 });
  return values.socket;
}

/** What the kernel's module says of itself, without a process; empty before it is loaded. */
function versionOfModule(): string {
  try {
    return readFileSync('/sys/module/zfs/version', 'utf8').trim();
  } catch {
    return '';
  }
}

async function main(): Promise<void> {
  const { pool, folder } = values;
  if (pool === undefined) throw new Error('--pool NAME is missing');
  mkdirSync(folder, { recursive: true, mode: 0o700 });
  const standby = new Standby();
  const { command } = standby;
  const keeper = newKeeper(pool, command, thisMachine);
  const policy = {
    folders: values['import-folder'],
    allowLocalAddresses: values['allow-local-addresses'],
    largest: bytesOf(values['largest-import']),
  };
  const imports = new Imports(keeper, { command, policy, folder, atOnce: 2, report });
  const exports = new Exports(keeper, { command, folder, report });
  const openzfs = versionOfModule();
  const version = typeof ZFSDEV_VERSION === 'string' ? ZFSDEV_VERSION : '0.0.0';
  const daemon = { keeper, imports, exports, version, openzfs, report };
  const recovery = new Recovery([imports, exports], keeper.watch, report);
  recovery.begin();
  const listener = await listen(daemon, { socket: socketOf(), tcp: tcpOf() });
  report(`managing the pool ${pool}`);
  for (const signal of ['SIGTERM', 'SIGINT'] as const) {
    process.once(signal, () => {
      recovery.end();
      standby.end();
      void Promise.all([listener.close(), imports.close()]).finally(() => process.exit(0));
    });
  }
}

main().catch((error: unknown) => {
  report(wordsOf(error));
  process.exit(1);
});
