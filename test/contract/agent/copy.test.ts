import {
  chmod,
  lstat,
  mkdir,
  mkdtemp,
  open,
  readFile,
  readdir,
  readlink,
  rm,
  symlink,
  utimes,
  writeFile,
} from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import type { AgentChannel } from '../../../src/guest/agent-channel.ts';
import { failure, quick, startTestAgent, type TestAgent } from './support.ts';

let agent: TestAgent;
let channel: AgentChannel;
let from: string;
let to: string;
let folder: string;

beforeAll(async () => {
  agent = await startTestAgent();
  channel = agent.channel();
});
afterAll(() => agent.remove());

const odd = ['a b', '-rf', '--help', 'line\nfeed', "it's", '@list', 'ü\\n', 'x,y&z', '*'];

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'zfsdev-copy-'));
  [from, to] = [join(folder, 'from'), join(folder, 'to')];
  await mkdir(join(from, 'tree', 'empty'), { recursive: true });
  await mkdir(to);
  for (const name of odd) await writeFile(join(from, 'tree', name), name);
  await symlink('./a b', join(from, 'tree', 'link'));
  await symlink('./tree/nowhere', join(from, 'tree', 'dangling'));
  await writeFile(join(from, 'tree', 'script'), '#!/bin/sh\n');
  await chmod(join(from, 'tree', 'script'), 0o751);
  await utimes(join(from, 'tree', 'script'), 1_000_000_000.25, 1_000_000_000.25);
  const sparse = await open(join(from, 'tree', 'sparse'), 'w');
  await sparse.truncate(64 * 1024 * 1024);
  await sparse.write('end', 64 * 1024 * 1024 - 3);
  await sparse.close();
  await chmod(join(from, 'tree'), 0o711);
  await utimes(join(from, 'tree'), 1_000_000_000, 1_000_000_000);
  return () => rm(folder, { recursive: true, force: true });
});

async function expectTree(path: string): Promise<void> {
  expect((await readdir(path)).sort()).toEqual(
    [...odd, 'dangling', 'empty', 'link', 'script', 'sparse'].sort(),
  );
  for (const name of odd) expect(await readFile(join(path, name), 'utf8')).toBe(name);
  expect(await readlink(join(path, 'link'))).toBe('./a b');
  expect(await readlink(join(path, 'dangling'))).toBe('./tree/nowhere');
  const script = await lstat(join(path, 'script'));
  expect(script.mode & 0o7777).toBe(0o751);
  expect(script.mtimeMs).toBe(1_000_000_000_250);
  const sparse = await lstat(join(path, 'sparse'));
  expect(sparse.size).toBe(64 * 1024 * 1024);
  expect(sparse.blocks * 512).toBeLessThan(1024 * 1024);
  const top = await lstat(path);
  expect(top.mode & 0o777).toBe(0o711);
  expect(top.mtimeMs).toBe(1_000_000_000_000);
}

// Host and guest are one file system here, so both directions can be held to the same.
describe.each(['copyIn', 'copyOut'] as const)('%s', (direction) => {
  const copy = (sources: readonly string[], destination: string): Promise<void> =>
    channel[direction](sources, destination, quick.signal);

  it('puts a folder into a folder that is there', async () => {
    await copy([join(from, 'tree')], to);
    await expectTree(join(to, 'tree'));
  });

  it('gives a folder the name of what is not there', async () => {
    await copy([join(from, 'tree')], join(to, 'new, & \\odd'));
    await expectTree(join(to, 'new, & \\odd'));
  });

  it.each(odd)('copies a file named %j, and to that name', async (name) => {
    await copy([join(from, 'tree', name)], to);
    expect(await readFile(join(to, name), 'utf8')).toBe(name);
    await copy([join(from, 'tree', 'script')], join(to, 'other'));
    await copy([join(from, 'tree', 'a b')], join(to, name));
    expect(await readFile(join(to, name), 'utf8')).toBe('a b');
    expect((await readdir(to)).sort()).toEqual([name, 'other'].sort());
  });

  it('copies several into a folder, and refuses to make one of them', async () => {
    await copy([join(from, 'tree'), join(from, 'tree', '-rf'), join(from, 'tree', 'a b')], to);
    expect((await readdir(to)).sort()).toEqual(['-rf', 'a b', 'tree']);
    const told = await failure(
      copy([join(from, 'tree', '-rf'), join(from, 'tree', 'a b')], join(to, 'none')),
    );
    expect(`${told.message} ${told.detail ?? ''}`).toContain('several sources');
  });

  it('copies what is in a folder, when it is named with a dot', async () => {
    await copy([`${join(from, 'tree')}/.`], join(to, 'made'));
    await expectTree(join(to, 'made'));
    await rm(join(to, 'made'), { recursive: true });
    await copy([`${join(from, 'tree')}/.`], to);
    await expectTree(to);
  });

  it('tells what is not there, and where nothing can be written', async () => {
    const missing = await failure(copy([join(from, 'none')], to));
    expect(missing.detail).toContain('none');
    const nowhere = await failure(copy([join(from, 'tree')], join(to, 'no/such/folder')));
    expect(nowhere.detail).toContain('no/such');
  });

  it('can be interrupted', async () => {
    await writeFile(join(from, 'big'), Buffer.alloc(200_000_000, 1));
    const interruption = new AbortController();
    const running = failure(channel[direction]([join(from, 'big')], to, interruption.signal));
    setTimeout(() => interruption.abort(), 30);
    expect((await running).reason).toBe('interrupted');
  });
});
