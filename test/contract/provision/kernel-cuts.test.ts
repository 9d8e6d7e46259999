import { readFileSync } from 'node:fs';
import { utimes } from 'node:fs/promises';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { FakeProgram } from '../../fakes/programs.ts';
import { KernelHouse, none, tree } from './kernel-house.ts';

const phases = ['preflight', 'source', 'config', 'make', 'modules', 'zfs', 'initrd', 'archive'];

let place: KernelHouse;
beforeEach(async () => {
  place = await KernelHouse.open();
});
afterEach(() => place.close());

describe('a phase that is cut off in its last moment', () => {
  /** Ends of `sync`: what a phase ends with, before its stamp is there and behind it. */
  function syncs(...codes: readonly number[]): FakeProgram {
    return { calls: codes.map((exitCode) => ({ argv: ['-f', place.build], exitCode, times: 1 })) };
  }

  it('is done again, and the build comes to its end', async () => {
    await place.archive('in/source.tar', tree);
    const cuts = [1, 0, 1];
    // make begins with one, once for each start of the machine.
    const all = [...cuts, ...cuts, ...cuts, 0, ...cuts, ...cuts, ...cuts, ...cuts, ...cuts];
    await place.play({}, { sync: syncs(...all) });
    await place.grow();
    for (const phase of phases) {
      const beforeStamp = await place.run(phase);
      expect({ phase, ...beforeStamp }).toMatchObject({ phase, exitCode: 1, stderr: '' });
      expect(place.has(`done/${phase}`)).toBe(false);
      const beforeTidying = await place.run(phase);
      expect({ phase, ...beforeTidying }).toMatchObject({ phase, exitCode: 1, stderr: '' });
      expect(place.has(`done/${phase}`)).toBe(true);
      // What it told is told again, and what nothing needs any more is taken away.
      const last = await place.run(phase);
      expect({ phase, ...last }).toMatchObject({ phase, exitCode: 0, stderr: '' });
      const facts = beforeTidying.stdout.split('\n').filter((line) => line.startsWith('@ '));
      expect(last.stdout.trimEnd().split('\n')).toEqual(facts);
    }
    const left = ['in/source.tar', 'fetch', 'src', 'stage', 'pack'].filter((name) => place.has(name));
    expect(left).toEqual([]);
    expect(place.has('out/kernel-6.99.0-test.tar.zst')).toBe(true);
  });
});

describe('what a build has come to', () => {
  async function build(): Promise<void> {
    await place.archive('in/source.tar', tree);
    for (const phase of phases)
      expect({ phase, ...(await place.run(phase)) }).toMatchObject({ phase, exitCode: 0, stderr: '' });
  }

  it('is not written to the disk of a host before it is two minutes old', async () => {
    await place.play({}, { sync: none });
    await build();
    expect(place.has('done/settled')).toBe(false);
  });

  it('is on it at the end of each phase from then on, and it says so', async () => {
    await place.play();
    await place.grow();
    await build();
    expect(place.has('done/settled')).toBe(true);
    const synced = (await place.house.calls()).filter((call) => call.startsWith('sync '));
    expect(synced).toHaveLength(2 * phases.length + 1);
  });

  it('is on the disk of a machine at the end of each phase from the first on', async () => {
    await place.play({ TRIM: 'yes' }, { fstrim: { calls: [{ argv: [place.build] }] } });
    expect(await place.run('preflight')).toMatchObject({ exitCode: 0, stderr: '' });
    expect((await place.house.calls()).filter((call) => call.startsWith('sync '))).toHaveLength(2);
  });
});

describe('make, where it was cut off', () => {
  const ago = (seconds: number): number => Date.now() / 1000 - seconds;

  /** Objects of an earlier make, and when they were written. */
  async function earlier(boot: string): Promise<void> {
    const times = {
      Makefile: 9000,
      'kernel/whole.o': 500,
      'kernel/last.o': 20,
      'kernel/empty.o': 10,
      '.config': 5,
    };
    await place.put({ 'done/jobs.value': '1\n', 'done/config': '', 'done/boot.value': boot });
    for (const [name, seconds] of Object.entries(times)) {
      await place.put({ [`src/${name}`]: name === '.config' ? 'CONFIG_MODULES=y\n' : '' });
      await utimes(place.path('src', name), ago(seconds), ago(seconds));
    }
    await utimes(place.path('done/config'), ago(1000), ago(1000));
  }

  const left = (): string[] =>
    ['Makefile', 'kernel/whole.o', 'kernel/last.o', 'kernel/empty.o', '.config'].filter((name) =>
      place.has(`src/${name}`),
    );

  it('makes again what may not have reached the disk, if the machine has started anew', async () => {
    await place.play();
    await earlier('another boot\n');
    expect(await place.run('make')).toMatchObject({ exitCode: 0, stderr: '' });
    expect(left()).toEqual(['Makefile', 'kernel/whole.o', '.config']);
  });

  it('makes it again also if that was cut off itself', async () => {
    const words = (length: number): RegExp[] => Array.from({ length }, () => /./);
    const looks = { argv: words(7), stdout: `${ago(10)}\n` };
    await place.play({}, { find: { calls: [looks, { argv: words(11), exitCode: 1 }] } });
    await earlier('another boot\n');
    expect(await place.run('make')).toMatchObject({ exitCode: 1 });
    await place.play();
    expect(await place.run('make')).toMatchObject({ exitCode: 0, stderr: '' });
    expect(left()).toEqual(['Makefile', 'kernel/whole.o', '.config']);
  });

  it('has as many compilers as are asked for now', async () => {
    await place.play({ JOBS: 7 });
    await earlier(readFileSync('/proc/sys/kernel/random/boot_id', 'utf8'));
    await place.put({ 'done/jobs.value': '7\n' });
    // The kernel's make is called with -j 1, or refused.
    expect(await place.run('make', '1')).toMatchObject({ exitCode: 0, stderr: '' });
    expect(await place.run('modules', '1')).toMatchObject({ exitCode: 0, stderr: '' });
  });

  it('keeps all of it, if the machine is the same', async () => {
    await place.play();
    await earlier(readFileSync('/proc/sys/kernel/random/boot_id', 'utf8'));
    expect(await place.run('make')).toMatchObject({ exitCode: 0, stderr: '' });
    expect(left()).toHaveLength(5);
  });
});
