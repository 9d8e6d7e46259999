import { chmod, mkdir, readFile, readdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { parse } from 'yaml';
import { GiB, MiB } from '../../../src/core/bytes.ts';
import { deadlineIn } from '../../../src/host/deadline.ts';
import { hostArchitecture } from '../../../src/qemu/binary.ts';
import { buildKernel } from '../../../src/kernel/build.ts';
import { parseRequest } from '../../../src/kernel/request.ts';
import type { HostResources } from '../../../src/kernel/scale.ts';
import { testContext, type TestContext } from '../../support/context.ts';

/** Keeps what machine it is told to make, and then makes none. */
const limactl = `#!/bin/sh
here=$(dirname "$0")
case $3 in
  --version) echo 'limactl version 2.2.0' ;;
  create) cp "$5" "$here/asked.yaml"; exit 1 ;;
  *) echo "$*" >>"$here/unexpected"; exit 99 ;;
esac
`;

/** What no guest runs in: a test of hardware acceleration fails. */
const qemu = `#!/bin/sh
[ "$1" = --version ] || exit 1
echo 'QEMU emulator version 10.0.0'
`;

let ctx: TestContext;
let bin: string;

beforeEach(async () => {
  const { folder } = await testContext();
  bin = join(folder, 'bin');
  const system = `qemu-system-${hostArchitecture()}`;
  // The second variable is Lima's own: which QEMU it is to take.
  const env = { [`QEMU_SYSTEM_${hostArchitecture().toUpperCase()}`]: system };
  ctx = await testContext({ folder, path: `${bin}:${process.env['PATH'] ?? ''}`, env });
  await mkdir(bin);
  await mkdir(join(folder, 'linux'));
  for (const [name, text] of Object.entries({ limactl, [system]: qemu })) {
    await writeFile(join(bin, name), text);
    await chmod(join(bin, name), 0o755);
  }
});
afterEach(async () => {
  const unexpected = await readFile(join(bin, 'unexpected'), 'utf8').catch(() => '');
  await ctx.remove();
  expect(unexpected).toBe('');
});

interface Made {
  readonly cpus: number;
  readonly memory: string;
}

/** Has a host of this size make the machine; gives what it was told, and what machine is to be made. */
async function making(host: HostResources): Promise<{ notices: string[]; failure: unknown; asked?: Made }> {
  const request = await parseRequest({
    source: join(ctx.folder, 'linux'),
    config: 'tinyconfig',
    zfs: 'none',
  });
  const failure: unknown = await buildKernel(ctx, request, {
    ...{ builder: 'vm', driver: 'lima', host, jobsAsked: false, overcommit: true },
    ...{ resume: false, keep: false, keepInterrupted: false, deleteAlways: false },
    output: { folder: join(ctx.folder, 'out'), overwrite: false },
    deadline: deadlineIn(600_000),
  }).catch((error: unknown) => error);
  const notices = ctx.events.flatMap((event) =>
    event.type === 'notice' && event.level === 'info' ? [event.text] : [],
  );
  const yaml = await readFile(join(bin, 'asked.yaml'), 'utf8').catch(() => undefined);
  return { notices, failure, ...(yaml === undefined ? {} : { asked: parse(yaml) as Made }) };
}

describe('the machine of a build', () => {
  it('is as the template has it where the host is large enough, and nothing is said', async () => {
    const { notices, asked } = await making({ cpus: 64, freeMemory: 100 * GiB });
    expect(asked).toMatchObject({ cpus: 4, memory: '4GiB' });
    expect(notices.filter((text) => text.includes('this host'))).toEqual([]);
  });

  it('has what the host has, which is said', async () => {
    const { notices, asked } = await making({ cpus: 1, freeMemory: 2560 * MiB });
    expect(asked).toMatchObject({ cpus: 1, memory: '2GiB' });
    expect(notices).toEqual(
      expect.arrayContaining([
        'this host has 1 processor: the machine gets that instead of 4',
        'this host has not the memory free: the machine gets 2 GiB instead of 4 GiB',
      ]),
    );
  });

  it('is not made at all where the host has too little memory, and nothing stays behind', async () => {
    const { failure, asked } = await making({ cpus: 2, freeMemory: GiB });
    expect(failure).toMatchObject({
      reason: 'unsupported',
      message: 'this host has 1 GiB of free memory, too little for a build machine',
      hint: expect.stringContaining('--builder chroot') as string,
    });
    expect(asked).toBeUndefined();
    expect(await readdir(ctx.paths.builds)).toEqual([]);
  });
});
