// Runs inside a machine: times zvold's answers and the bare commands beside them, in turn, and prints one line of JSON. What is
// timed is always with udev at rest before; what is only made ready or taken away again is not timed.
import { execFileSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { leastInTurn, timed, type Pair } from './measure.ts';
import { clientsAtOnce, connectTo } from './zvold-clients.ts';

const MiB = 2 ** 20;
// The first ones teach a compiler and an emulator what is done; the least is that of a daemon that has been at work.
const runs = 15;
const pool = 'testpool';
const [volumes = '1000', image = ''] = process.argv.slice(2);
const zvold = connectTo('/run/zfsdev/zvold.sock');
const run = (program: string, ...args: string[]): string =>
  execFileSync(program, args, { encoding: 'utf8', maxBuffer: 256 * MiB, timeout: 3_600_000 });
const zfs = (...args: string[]): string => run('zfs', ...args);
const settle = (): string => run('udevadm', 'settle');
const tell = (what: string): void => console.error(`zvold: ${what}`);

/** Seconds of some work that begins when udev is done with all that was before. */
function fromRest(work: () => unknown): Promise<number> {
  settle();
  return timed(work);
}

let turn = 0;
const next = (): string => `t${(turn += 1)}`;

/** zvold's way to do something and the bare command's, each with a name that nobody has. */
function both(ours: (name: string) => unknown, theirs: (name: string) => unknown): Promise<Pair> {
  return leastInTurn(
    runs,
    () => fromRest(() => ours(next())),
    () => fromRest(() => theirs(next())),
  );
}

/** Bytes of memory that zvold has to itself and shares. */
function memoryOf(): number {
  const pid = run('systemctl', 'show', '-p', 'MainPID', '--value', 'zfsdev-zvold').trim();
  return Number(/^VmRSS:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]) * 1024;
}

async function basics(): Promise<Record<string, Pair>> {
  await zvold.createVolume({ name: 'origin', sizeBytes: 16 * MiB });
  await zvold.createSnapshot('origin', 'base');
  await zvold.createTemplate({ name: 'base', volume: 'origin', snapshot: 'base' });
  const create = await both(
    (name) => zvold.createVolume({ name, sizeBytes: 16 * MiB }),
    (name) => {
      zfs('create', '-s', '-b', '16k', '-V', '16M', `${pool}/${name}`);
      settle();
    },
  );
  const clone = await both(
    (name) => zvold.cloneTemplate({ template: 'base', name }),
    (name) => {
      zfs('clone', `${pool}/origin@base`, `${pool}/${name}`);
      settle();
    },
  );
  const snapshot = await both(
    (name) => zvold.createSnapshot('origin', name),
    (name) => {
      zfs('snapshot', `${pool}/origin@${name}`);
      settle();
    },
  );
  const doomed = Array.from({ length: 2 * (runs + 1) }, next);
  for (const name of doomed) zfs('create', '-s', '-V', '16M', `${pool}/${name}`);
  const away = await both(
    () => zvold.deleteVolume(doomed.pop() ?? ''),
    () => {
      zfs('destroy', `${pool}/${doomed.pop() ?? ''}`);
      settle();
    },
  );
  return { create, clone, snapshot, delete: away };
}

/** A template with 64 MiB in it against one with nothing. */
async function cloneOfLarge(): Promise<Pair> {
  zfs('create', '-s', '-V', '256M', `${pool}/large`);
  settle();
  run('sh', '-c', `head -c 64M /dev/urandom >/dev/zvol/${pool}/large && sync`);
  await zvold.createSnapshot('large', 'base');
  await zvold.createTemplate({ name: 'large', volume: 'large', snapshot: 'base' });
  return both(
    (name) => zvold.cloneTemplate({ template: 'large', name }),
    (name) => zvold.cloneTemplate({ template: 'base', name }),
  );
}

/** An import as a volume, from its request to its end, against qemu-img alone, to a volume that is there. */
function importing(): Promise<Pair> {
  return leastInTurn(
    2,
    async () => {
      const name = next();
      const took = await fromRest(() => importAs(name));
      await zvold.deleteVolume(name);
      return took;
    },
    async () => {
      const name = next();
      zfs('create', '-s', '-b', '16k', '-V', '1G', `${pool}/${name}`);
      const device = `/dev/zvol/${pool}/${name}`;
      const took = await fromRest(() => {
        run('qemu-img', 'convert', '-n', '-O', 'raw', image, device);
        run('sync', device);
      });
      settle();
      zfs('destroy', `${pool}/${name}`);
      return took;
    },
  );
}

async function importAs(name: string): Promise<void> {
  const { id } = await zvold.startImport({ name, target: 'IMPORT_TARGET_VOLUME' }, image);
  for (;;) {
    const job = await zvold.import(id);
    if (job.state === 'IMPORT_STATE_COMPLETED') return;
    if (job.completedAt) throw new Error(`the import ended as ${job.state}: ${job.error}`);
    await delay(100);
  }
}

/** So many volumes with three snapshots each, made without zvold; without devices, since udev would take an hour for them. */
function makeMany(count: number): void {
  const inhibit = '/sys/module/zfs/parameters/zvol_inhibit_dev';
  writeFileSync(inhibit, '1');
  try {
    run('sh', '-c', `seq 0 ${count - 1} | xargs -P 4 -I @ zfs create -s -V 1M ${pool}/v@`);
  } finally {
    writeFileSync(inhibit, '0');
  }
  const names = Array.from({ length: count }, (_, index) => `${pool}/v${index}`);
  for (const snapshot of ['a', 'b', 'c'])
    for (let index = 0; index < count; index += 250)
      zfs('snapshot', ...names.slice(index, index + 250).map((name) => `${name}@${snapshot}`));
}

const columns =
  'name,type,guid,creation,used,referenced,volsize,volblocksize,compressratio,refreservation,origin,userrefs,clones';

async function listing(): Promise<{ volumes: number; snapshots: number; list: Pair }> {
  makeMany(Number(volumes));
  const listed = await zvold.volumes();
  return {
    volumes: listed.length,
    snapshots: listed.reduce((sum, { snapshots }) => sum + snapshots.length, 0),
    list: await leastInTurn(
      5,
      () => fromRest(() => zvold.volumes()),
      () => fromRest(() => zfs('list', '-Hp', '-r', '-t', 'volume,snapshot', '-o', columns, pool)),
    ),
  };
}

await zvold.pool();
// Nothing but an answer to one question so far.
const memory = memoryOf();
tell('create, clone, snapshot, delete');
const pairs = await basics();
tell('clones of a large template');
const large = await cloneOfLarge();
tell('imports');
const imports = await importing();
tell('64 clients at once');
const clients = await clientsAtOnce(64);
tell(`making ${volumes} volumes`);
const lists = await listing();
const report = {
  memory,
  memoryAfter: memoryOf(),
  ...pairs,
  cloneOfLarge: large,
  import: imports,
  clients,
  ...lists,
};
console.log(JSON.stringify(report));
process.exit(0);
