// Runs inside a machine: times zvold's answers and the bare commands beside them, in turn, and prints one line of JSON.
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { clientOver } from '../src/zvol/client.ts';
import { inTurnAsync } from './measure.ts';

const MiB = 2 ** 20;
const [volumes = '1000', image = ''] = process.argv.slice(2);
const proxy = {
  path: '/run/zfsdev/zvold.sock',
  problem: () => undefined,
  close: () => Promise.resolve(),
};
const zvold = clientOver(proxy, 'this machine', new AbortController().signal);
const run = (program: string, ...args: string[]): string =>
  execFileSync(program, args, { encoding: 'utf8', maxBuffer: 256 * MiB });
const zfs = (...args: string[]): string => run('zfs', ...args);
const settle = (): string => run('udevadm', 'settle');

const report: Record<string, unknown> = {};
await zvold.pool();
// Nothing but an answer to one question so far.
const pid = run('systemctl', 'show', '-p', 'MainPID', '--value', 'zfsdev-zvold').trim();
report['memory'] = Number(/^VmRSS:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]) * 1024;

await zvold.createVolume({ name: 'origin', sizeBytes: 16 * MiB });
await zvold.createSnapshot('origin', 'base');
await zvold.createTemplate({ name: 'base', volume: 'origin', snapshot: 'base' });

let turn = 0;
const next = (): string => `t${(turn += 1)}`;
const both = async (
  ours: (name: string) => Promise<unknown>,
  theirs: (name: string) => void,
  runs = 5,
): Promise<unknown> =>
  inTurnAsync(
    runs,
    () => ours(next()),
    () => Promise.resolve(theirs(next())),
  );

report['create'] = await both(
  (name) => zvold.createVolume({ name, sizeBytes: 16 * MiB }),
  (name) => {
    zfs('create', '-s', '-b', '16k', '-V', '16M', `testpool/${name}`);
    settle();
  },
);
report['clone'] = await both(
  (name) => zvold.cloneTemplate({ template: 'base', name }),
  (name) => {
    zfs('clone', 'testpool/origin@base', `testpool/${name}`);
    settle();
  },
);
report['snapshot'] = await both(
  (name) => zvold.createSnapshot('origin', name),
  (name) => void zfs('snapshot', `testpool/origin@${name}`),
);
const doomed = Array.from({ length: 12 }, next);
for (const name of doomed) zfs('create', '-s', '-V', '16M', `testpool/${name}`);
settle();
report['delete'] = await both(
  () => zvold.deleteVolume(doomed.pop() ?? ''),
  () => {
    zfs('destroy', `testpool/${doomed.pop() ?? ''}`);
    settle();
  },
);

// A template with sixteen times as much in it.
zfs('create', '-s', '-V', '256M', 'testpool/large');
settle();
run('sh', '-c', 'head -c 64M /dev/urandom >/dev/zvol/testpool/large && sync');
await zvold.createSnapshot('large', 'base');
await zvold.createTemplate({ name: 'large', volume: 'large', snapshot: 'base' });
report['cloneOfLarge'] = await inTurnAsync(
  5,
  () => zvold.cloneTemplate({ template: 'large', name: next() }),
  () => zvold.cloneTemplate({ template: 'base', name: next() }),
);

report['import'] = await inTurnAsync(
  2,
  async () => {
    const name = next();
    const { id } = await zvold.startImport({ name, target: 'IMPORT_TARGET_VOLUME' }, image);
    for await (const { import: job } of zvold.watch(AbortSignal.timeout(3_600_000)))
      if (job?.id === id && job.completedAt) break;
    if ((await zvold.import(id)).state !== 'IMPORT_STATE_COMPLETED')
      throw new Error((await zvold.import(id)).error);
    await zvold.deleteVolume(name);
  },
  () => {
    const name = next();
    zfs('create', '-s', '-b', '16k', '-V', '1G', `testpool/${name}`);
    settle();
    run('qemu-img', 'convert', '-n', '-O', 'raw', image, `/dev/zvol/testpool/${name}`);
    run('sync');
    zfs('destroy', `testpool/${name}`);
    return Promise.resolve();
  },
);

zfs('create', '-o', 'mountpoint=none', 'testpool/none');
for (let index = 0; index < Number(volumes); index += 1)
  zfs('create', '-s', '-V', '1M', `testpool/v${index}`);
for (const name of ['a', 'b', 'c'])
  for (let index = 0; index < Number(volumes); index += 100)
    zfs(
      'snapshot',
      ...Array.from(
        { length: Math.min(100, Number(volumes) - index) },
        (_, at) => `testpool/v${index + at}@${name}`,
      ),
    );
settle();
const listed = await zvold.volumes();
report['volumes'] = listed.length;
report['snapshots'] = listed.reduce((sum, { snapshots }) => sum + snapshots.length, 0);
const columns =
  'name,type,guid,creation,used,referenced,volsize,volblocksize,compressratio,refreservation,origin,userrefs,clones';
report['list'] = await inTurnAsync(
  5,
  () => zvold.volumes(),
  () => Promise.resolve(void zfs('list', '-Hp', '-r', '-t', 'volume,snapshot', '-o', columns, 'testpool')),
);
console.log(JSON.stringify(report));
process.exit(0);
