import { spawnSync } from 'node:child_process';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { createServer, type AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { deadlineIn } from '../src/host/deadline.ts';
import { loadDevices } from '../src/qemu/device-state.ts';
import { connectQmp } from '../src/qemu/qmp.ts';

/** How a bare QEMU gets the saved memory: mapped, as forks do, or read from a stream, as `-incoming` is mostly used. */
export type Way = 'mapped' | 'stream';

const patience = { deadline: deadlineIn(3_600_000), signal: new AbortController().signal };

/**
 * Seconds from the start of a bare QEMU until QMP says that the machine runs, restored from the state that a running fork
 * stands on: the arguments are that fork's own, with files and ports of their own. Its guest is told nothing, and the
 * machine ends at once. By stream, the fork itself is saved first, and stands still afterwards.
 */
export async function bareRestore(home: string, name: string, way: Way): Promise<number> {
  const instance = join(home, 'instances', name);
  const folder = await mkdtemp(join(tmpdir(), 'zfsdev-bare-'));
  try {
    const pid = (await readFile(join(instance, 'qemu.pid'), 'utf8')).trim();
    const { warm } = JSON.parse(await readFile(join(instance, 'state.json'), 'utf8')) as { warm: string };
    const state = join(home, 'warm', warm);
    const ports = [await freePort(), await freePort()];
    const [program = '', ...argv] = (await readFile(`/proc/${pid}/cmdline`, 'utf8'))
      .split('\0')
      .slice(0, -1)
      .map((word) => word.replaceAll(instance, folder))
      .map((word) => word.replaceAll(/127\.0\.0\.1:\d+/g, () => `127.0.0.1:${ports.shift()}`))
      .map((word) => (way === 'stream' ? ownMemory(word) : word));
    succeed('qemu-img', [
      ...['create', '-q', '-f', 'qcow2', '-F', 'qcow2', '-b', join(state, 'disk.qcow2')],
      join(folder, 'disk.qcow2'),
    ]);
    const stream = join(folder, 'stream');
    if (way === 'stream') await saveStream(join(instance, 'qmp.sock'), stream);
    const begin = performance.now();
    succeed(program, argv);
    const qmp = await connectQmp(join(folder, 'qmp.sock'), patience);
    try {
      if (way === 'mapped') await loadDevices(qmp, join(state, 'devices'), patience);
      else await qmp.execute('migrate-incoming', { uri: `exec:cat ${stream}` });
      while ((await qmp.execute('query-status')).status === 'inmigrate') await delay(5);
      await qmp.execute('cont');
      while (!(await qmp.execute('query-status')).running) await delay(1);
      return (performance.now() - begin) / 1000;
    } finally {
      await qmp.execute('quit').catch(() => undefined);
      await qmp.ended;
    }
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

function ownMemory(word: string): string {
  if (!word.startsWith('{"qom-type":"memory-backend-file"')) return word;
  const { id, size } = JSON.parse(word) as { id: string; size: number };
  return JSON.stringify({ 'qom-type': 'memory-backend-ram', id, size });
}

async function saveStream(socket: string, file: string): Promise<void> {
  const qmp = await connectQmp(socket, patience);
  try {
    await qmp.execute('stop');
    await qmp.execute('migrate', { uri: `exec:cat > ${file}` });
    while ((await qmp.execute('query-migrate')).status !== 'completed') await delay(20);
  } finally {
    qmp.close();
  }
}

function succeed(program: string, args: readonly string[]): void {
  const { status, stderr } = spawnSync(program, args, { encoding: 'utf8', timeout: 60_000 });
  if (status !== 0) throw new Error(`${program} exited ${String(status)}: ${stderr}`);
}

function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.once('error', reject);
    server.listen(0, '127.0.0.1', () => {
      const { port } = server.address() as AddressInfo;
      server.close(() => resolve(port));
    });
  });
}
