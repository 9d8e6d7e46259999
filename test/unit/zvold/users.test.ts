import { mkdir, mkdtemp, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { claimsOf, processesWith, type Kernel } from '../../../src/zvold/users.ts';

let folder: string;
let kernel: Kernel;
let device: string;
let path: string;

async function file(name: string, text = ''): Promise<string> {
  const place = join(folder, name);
  await mkdir(dirname(place), { recursive: true });
  await writeFile(place, text);
  return place;
}

async function process(
  pid: string,
  {
    name,
    mounts = '',
    view = 'mnt:[1]',
    open,
  }: { name: string; mounts?: string; view?: string; open?: string },
): Promise<void> {
  await file(`proc/${pid}/comm`, `${name}\n`);
  await file(`proc/${pid}/mountinfo`, mounts);
  await mkdir(join(folder, 'proc', pid, 'ns'));
  await symlink(view, join(folder, 'proc', pid, 'ns', 'mnt'));
  await mkdir(join(folder, 'proc', pid, 'fd'));
  if (open !== undefined) await symlink(open, join(folder, 'proc', pid, 'fd', '3'));
}

const mount = (source: string, target: string): string =>
  `36 25 230:0 / ${target} rw,relatime shared:1 - ext4 ${source} rw\n`;

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'zfsdev-users-'));
  kernel = { proc: join(folder, 'proc'), sys: join(folder, 'sys') };
  device = await file('dev/zd16');
  path = join(folder, 'dev', 'data');
  await symlink(device, path);
  await file('proc/swaps', 'Filename Type Size Used Priority\n');
  await mkdir(join(folder, 'sys', 'block', 'zd16', 'holders'), { recursive: true });
  await process('1', { name: 'init' });
  await process('self', { name: 'zvold' });
});

afterEach(() => rm(folder, { recursive: true, force: true }));

describe('what a device is kept for', () => {
  it('is nothing for one that nobody uses, or that is not there', async () => {
    expect(await claimsOf(path, kernel)).toEqual([]);
    expect(await claimsOf(join(folder, 'dev', 'none'), kernel)).toEqual([]);
    expect(await processesWith(path, kernel)).toEqual([]);
  });

  it('is a mount of it or of a partition, in the view of init too', async () => {
    await file('dev/zd16p1');
    await file('proc/self/mountinfo', mount(path, '/mnt') + mount(join(folder, 'dev', 'zd160'), '/other'));
    await file('proc/1/mountinfo', mount(`${device}p1`, '/a\\040b'));
    expect(await claimsOf(path, kernel)).toEqual(['mounted at /mnt', 'mounted at /a b']);
  });

  it('is not nothing where it can’t be looked at', async () => {
    await rm(join(folder, 'proc/swaps'));
    expect(await claimsOf(path, kernel)).toEqual([]);
    await mkdir(join(folder, 'proc/swaps'));
    await expect(claimsOf(path, kernel)).rejects.toMatchObject({ code: 'UNAVAILABLE' });
    await rm(path);
    await symlink(path, path);
    for (const look of [claimsOf, processesWith])
      await expect(look(path, kernel)).rejects.toMatchObject({
        code: 'UNAVAILABLE',
        message: expect.stringContaining('ELOOP') as string,
      });
  });

  it('is swap', async () => {
    await file('proc/swaps', `Filename Type Size Used Priority\n${device} partition 1048572 0 -2\n`);
    expect(await claimsOf(path, kernel)).toEqual(['used as swap']);
  });

  it('is what stands on it or on a partition, by its name', async () => {
    await mkdir(join(folder, 'sys/block/zd16/holders/dm-0'));
    await file('sys/block/dm-0/dm/name', 'group-logical\n');
    await mkdir(join(folder, 'sys/block/zd16/zd16p2/holders/md0'), { recursive: true });
    expect(await claimsOf(path, kernel)).toEqual(['used by group-logical', 'used by md0']);
  });

  it('is a loop device', async () => {
    await file('sys/block/loop0/loop/backing_file', '/somewhere/else\n');
    await file('sys/block/loop7/loop/backing_file', `${device}\n`);
    expect(await claimsOf(path, kernel)).toEqual(['used by the loop device loop7']);
  });
});

describe('who has a device open', () => {
  it('is named, but for those who look at every device that comes', async () => {
    await process('50', { name: 'qemu', open: device });
    await process('51', { name: '(udev-worker)', open: device });
    await process('52', { name: 'sh', open: '/dev/null' });
    expect(await processesWith(path, kernel)).toEqual(['open in qemu (50)']);
  });

  it('is one who has it mounted where nobody else sees it', async () => {
    await process('60', { name: 'container', view: 'mnt:[2]', mounts: mount(device, '/inside') });
    await process('61', { name: 'its-child', view: 'mnt:[2]', mounts: mount(device, '/inside') });
    expect(await processesWith(path, kernel)).toEqual(['mounted at /inside as container (60) sees it']);
  });
});
