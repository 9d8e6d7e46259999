import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { ownHome, removeAll } from '../support/home.ts';
import {
  countsOf,
  failuresOf,
  groupsAbout,
  groupsChosen,
  groupsOf,
  mayBeRunning,
  missingOf,
  outcomesOf,
  runfileOf,
  type Group,
  type Outcomes,
} from '../support/openzfs.ts';

// OpenZFS's own tests of zvols (Debian's package zfs-test), beside a zvold that is at work all the time: neither may harm the
// other. A test that fails has to fail without zvold, too.

const zfsdev = ownHome();
const name = 'beside';
const suite = 'tests/functional/zvol/';
/** The groups or tests that are run, by parts of their paths; all of them where it is not set. */
const chosen = (process.env['ZFSDEV_OPENZFS_TESTS'] ?? '').split(',').filter((word) => word !== '');
/** Seconds for each script. An emulated machine takes an hour for what a real one does in minutes. */
const timeout = 2 * 3600;
/** While it runs, no zvol of the machine gets a device: it turns that off for the whole module. */
const withoutDevices = 'zvol_misc_volmode';
/** How often a test that failed is tried without zvold: some fail now and then by themselves. */
const rounds = 3;
let folder: string;

// As zfs-test, with room for the suite's three files. Its pool has another name: the suite would destroy a `testpool`.
const template = `description: OpenZFS's own tests beside zvold
cpus: 2
memory: 3GiB
disk: 16GiB
pool:
  name: kept
  files: 2
  fileSize: 512MiB
  properties:
    compression: lz4
    atime: off
worstCase:
  base: 1.5GB
  packages: 1GB
  headroom: 12GB
`;

// The image has the module, but not the package of that name; with zfs-dkms it would be compiled once more.
const prepare = `set -eu
umask 022
export DEBIAN_FRONTEND=noninteractive
mkdir -p /root/module/DEBIAN
printf '%s\\n' 'Package: zfsdev-module' 'Version: 1' 'Architecture: all' 'Maintainer: zfsdev <root@localhost>' \
  'Provides: zfs-modules' 'Description: the module that the image has' >/root/module/DEBIAN/control
dpkg-deb --build /root/module /root/module.deb
dpkg --install /root/module.deb
apt-get -q -y -o Acquire::Retries=3 update
apt-get -q -y -o Acquire::Retries=3 install --no-install-recommends zfs-test
useradd --create-home zfs-tests
echo 'zfs-tests ALL=(ALL) NOPASSWD:ALL' >/etc/sudoers.d/zfs-tests
chmod 0440 /etc/sudoers.d/zfs-tests
# dpkg knows it by name, since other packages do.
! dpkg-query --show --showformat '\${db:Status-Abbrev}\\n' zfs-dkms 2>/dev/null | grep -q '^i'
`;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'zfsdev-openzfs-'));
  const file = join(folder, 'beside.yaml');
  await writeFile(file, template);
  await succeed('up', file, '--name', name, '--cold', '--overcommit', '--timeout', '30m');
  console.log('installing zfs-test');
  const script = join(folder, 'prepare.sh');
  await writeFile(script, prepare);
  await succeed('copy', script, `${name}:/root/prepare.sh`);
  await guest('sh /root/prepare.sh >/root/prepare.log 2>&1 || { tail -n 40 /root/prepare.log; exit 1; }');
}, 4 * 3_600_000);

afterAll(async () => {
  await removeAll(zfsdev);
  await rm(folder, { recursive: true, force: true });
});

async function succeed(...words: string[]): Promise<string> {
  const { exitCode, stdout, stderr } = await zfsdev(...words);
  if (exitCode !== 0) throw new Error(`zfsdev ${words.join(' ')} exited ${exitCode}:\n${stdout}\n${stderr}`);
  return stdout;
}

const guest = async (script: string): Promise<string> =>
  (await succeed('exec', name, '--', 'sh', '-c', script)).trim();

/** What a test that was killed did not put back. */
const resetModule = `cd /sys/module/zfs/parameters && echo 0 >zvol_inhibit_dev && echo 1 >zvol_volmode`;

/** Runs these groups to their end; `meanwhile` is called over and over until then, with what is known so far. */
async function runSuite(
  title: string,
  groups: readonly Group[],
  meanwhile?: (outcomes: Outcomes) => Promise<void>,
): Promise<Outcomes> {
  const runfile = join(folder, 'zvol.run');
  await writeFile(runfile, runfileOf(groups, timeout));
  await succeed('copy', runfile, `${name}:/var/tmp/zvol.run`);
  await guest('chmod 0644 /var/tmp/zvol.run; : >/var/tmp/zvol.out');
  const told = new Set<string>();
  const look = async (): Promise<Outcomes> => {
    const outcomes = outcomesOf(await guest('cat /var/tmp/zvol.out'));
    for (const [path, { result, took }] of outcomes)
      if (!told.has(path)) console.log(`${title}: ${path.slice(suite.length)} ${result} (${took})`);
    for (const path of outcomes.keys()) told.add(path);
    return outcomes;
  };
  // -x takes away what an earlier run left; it looks for nothing but its own names. A pool that it is not told to keep, the suite
  // destroys: what it finds out by itself is wrong where its user may not ask for pools.
  const command =
    'cd /var/tmp && runuser -u zfs-tests -- env KEEP=kept /usr/share/zfs/zfs-tests.sh -v -x -r /var/tmp/zvol.run';
  const run = zfsdev.begin('exec', name, '--', 'sh', '-c', `${command} >/var/tmp/zvol.out 2>&1`);
  const state = { ended: false };
  void run.result.then(() => (state.ended = true));
  try {
    while (meanwhile && !state.ended) await meanwhile(await look());
  } catch (error) {
    // Nobody waits for hours to hear of it; the machine goes anyway.
    run.kill('SIGKILL');
    throw error;
  } finally {
    await run.result;
  }
  const outcomes = await look();
  console.log(`${title}: ${countsOf(outcomes)}`);
  const missing = missingOf(groups, outcomes);
  if (missing.length > 0)
    throw new Error(`${missing.join(', ')} did not run:\n${await guest('tail -n 60 /var/tmp/zvol.out')}`);
  return outcomes;
}

/** The life of a volume, as the host drives it. */
async function driveZvold(turn: number): Promise<void> {
  const volume = `turn${turn}`;
  await succeed('volume', 'create', name, volume, '--size', '16MiB');
  await succeed('vsnap', 'create', name, volume, 'one');
  expect(await succeed('volume', 'list', name)).toMatch(new RegExp(`^${volume}\\s`, 'm'));
  await succeed('vsnap', 'delete', name, volume, 'one');
  await deleted(volume);
}

/** A pool that the suite imports is looked for on all devices; who has one open for that is named, and soon through. */
async function deleted(volume: string): Promise<void> {
  for (let attempt = 1; ; attempt += 1) {
    const { exitCode, stderr } = await zfsdev('volume', 'delete', name, volume);
    if (exitCode === 0) return;
    if (attempt === 10 || !/open in /.test(stderr)) throw new Error(stderr);
  }
}

/** The failures that do not occur where there is no zvold. */
async function blamedOnZvold(groups: readonly Group[], failures: readonly string[]): Promise<string[]> {
  let blamed = [...failures];
  if (blamed.length === 0) return [];
  await guest('systemctl stop zfsdev-zvold.socket zfsdev-zvold.service');
  for (let round = 1; round <= rounds && blamed.length > 0; round += 1) {
    await guest(resetModule);
    const outcomes = await runSuite(`without zvold, round ${round}`, groupsAbout(groups, blamed));
    for (const path of blamed)
      if (outcomes.get(path)?.result !== 'PASS')
        console.log(`${path.slice(suite.length)} fails without zvold, too`);
    blamed = blamed.filter((path) => outcomes.get(path)?.result === 'PASS');
  }
  await guest(resetModule);
  await guest('systemctl start zfsdev-zvold.socket');
  return blamed;
}

async function wordsOf(path: string): Promise<string> {
  const script = path.slice(path.lastIndexOf('/') + 1);
  return guest(`find /var/tmp/test_results -type f -path '*/${script}/*' -exec tail -n 30 {} +`);
}

it("OpenZFS's tests of zvols pass beside zvold as they do without it, and zvold goes on working", async () => {
  await succeed('volume', 'create', name, 'witness', '--size', '64MiB');
  await guest('head -c 64M /dev/urandom >/dev/zvol/kept/witness && sync');
  const sum = await guest('sha256sum </dev/zvol/kept/witness');
  const runfiles = await guest('cat /usr/share/zfs/runfiles/common.run /usr/share/zfs/runfiles/linux.run');
  const all = groupsOf(runfiles, suite);
  expect(all.flatMap(({ tests }) => tests).length).toBeGreaterThan(10);
  const groups = groupsChosen(all, chosen);
  console.log(`running ${groups.flatMap(({ tests }) => tests).length} tests`);

  let turns = 0;
  const outcomes = await runSuite('with zvold', groups, async (known) => {
    await succeed('volume', 'list', name);
    if (mayBeRunning(groups, known, withoutDevices)) return;
    if ([...known].some(([path, { result }]) => path.endsWith(withoutDevices) && result === 'KILLED'))
      await guest(resetModule);
    await driveZvold((turns += 1));
  });
  console.log(`with zvold: ${turns} volumes were made and deleted meanwhile`);
  expect(turns).toBeGreaterThan(0);
  expect(await guest('systemctl show -p NRestarts --value zfsdev-zvold')).toBe('0');
  const { volumes } = JSON.parse(await succeed('volume', 'list', name, '--json')) as {
    volumes: { name: string }[];
  };
  expect(volumes.map((volume) => volume.name)).toEqual(['witness']);

  const failures = failuresOf(outcomes);
  const blamed = await blamedOnZvold(groups, failures);
  console.log(`${failures.length} failed beside zvold, ${blamed.length} of them not without it`);
  const words = await Promise.all(blamed.map(wordsOf));
  expect(blamed, words.join('\n\n')).toEqual([]);

  expect(await guest('sha256sum </dev/zvol/kept/witness')).toBe(sum);
  await guest('zpool scrub -w kept');
  expect(await guest('zpool status -x kept')).toBe("pool 'kept' is healthy");
  expect(await guest('zpool status kept')).toMatch(/scrub repaired 0B in .* with 0 errors/);
  // It still works where it was stopped meanwhile.
  await driveZvold((turns += 1));
});
