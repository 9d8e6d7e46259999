import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { ownHome, removeAll } from '../support/home.ts';
import { runInGuest } from '../support/guest-program.ts';
import { inGuest } from '../support/in-guest.ts';
import { refused } from '../support/outcome.ts';

const zfsdev = ownHome();
const name = 'vol-faults';

beforeAll(async () => {
  const up = await zfsdev('up', 'zfs-test', '--name', name);
  if (up.exitCode !== 0) throw new Error(up.stderr);
});

afterAll(() => removeAll(zfsdev));

async function expectAllWell(program: string): Promise<void> {
  const { exitCode, stdout, stderr } = await runInGuest(zfsdev, name, program);
  // All lines, so that a failure tells which part it was.
  expect(stdout.split('\n').filter((line) => line.startsWith('failed:'))).toEqual([]);
  expect({ exitCode, stderr }).toEqual({ exitCode: 0, stderr: '' });
  expect(stdout).toContain('ok: ');
}

const guest = (...argv: string[]): Promise<string> => inGuest(zfsdev, name, ...argv);

// One machine goes through all of it.
describe('zvold on a real pool', () => {
  it('leaves no orphan and no lying record, wherever it is killed', () =>
    expectAllWell('test/vm/guest/killed.ts'));

  it('bears what goes wrong around it', () => expectAllWell('test/vm/guest/faults.ts'));

  it('tells of a pool that is exported, and comes back by itself when that does', async () => {
    await guest('zpool', 'export', 'testpool');
    await refused(zfsdev('volume', 'list', name), 1, /not imported/);
    await guest('sh', '-c', '/usr/lib/zfsdev/pool-start >/dev/null');
    const { exitCode, stdout } = await zfsdev('volume', 'list', name, '--json');
    expect(exitCode).toBe(0);
    expect(JSON.parse(stdout)).toEqual({ volumes: [] });
  });

  it.each([['a/b'], ['a@b'], ['a b'], ['x'.repeat(256)]])('has no volume named "%s"', (word) =>
    refused(zfsdev('volume', 'create', name, word, '--size', '1MiB'), 2, /name of the volume/),
  );
});
