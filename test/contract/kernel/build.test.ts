import { createHash } from 'node:crypto';
import { appendFile, chmod, mkdir, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { Failure } from '../../../src/core/errors.ts';
import type { ZfsdevEvent } from '../../../src/core/events.ts';
import type { Context } from '../../../src/host/context.ts';
import { deadlineIn } from '../../../src/host/deadline.ts';
import { toolchainOf } from '../../../src/image/toolchain.ts';
import { members } from '../../../src/kernel/archive.ts';
import { buildKernel, type KernelBuildOptions, type KernelResult } from '../../../src/kernel/build.ts';
import { buildId, parseRequest, type RequestOptions } from '../../../src/kernel/request.ts';
import { machineName } from '../../../src/kernel/vm-builder.ts';
import { call } from '../../support/call.ts';
import { testContext, type TestContext } from '../../support/context.ts';
import { stoppedInstance } from '../../support/instances.ts';
import { kernelManifest } from '../../support/kernel-archive.ts';

/** Plays the phases of a build in the place of the namespaces that they would run in: each fails that has a file of words. */
const unshare = `#!/bin/sh
here=$(dirname "$0")
while [ "$1" != sh ]; do shift; done
build=$4 phase=$6
echo "$phase $7" >>"$here/calls"
[ ! -e "$here/$phase.hangs" ] || exec sleep 600
if [ -e "$here/$phase" ]; then cat "$here/$phase"; exit 1; fi
case $phase in
  config) echo '@ release 1' ;;
  archive)
    mkdir -p "$build/out"
    cp "$here/built" "$build/out/kernel-1.tar.zst"
    echo '@ archive kernel-1.tar.zst'
    echo "@ sha256 $(cat "$here/sum")"
    ;;
esac
`;

let ctx: TestContext;
let output: string;
const at = (...names: string[]): string => join(ctx.folder, ...names);

beforeEach(async () => {
  const first = await testContext();
  const bin = join(first.folder, 'bin');
  const { folder } = first;
  ctx = await testContext({ folder, path: `${bin}:${process.env['PATH'] ?? ''}` });
  output = at('out');
  for (const name of ['bin', 'packed', 'empty', 'linux']) await mkdir(at(name));
  await writeFile(at('bin', 'unshare'), unshare);
  await chmod(at('bin', 'unshare'), 0o755);
  for (const member of members) await writeFile(at('packed', member), '');
  await writeFile(at('packed', 'manifest.json'), JSON.stringify(kernelManifest));
  call('tar', '-C', at('packed'), '--zstd', '-cf', at('bin', 'built'), ...members);
  const sum = createHash('sha256').update(await readFile(at('bin', 'built')));
  await writeFile(at('bin', 'sum'), sum.digest('hex'));
  const { target } = await toolchainOf(ctx.paths.images, 'trixie');
  await mkdir(dirname(target), { recursive: true });
  call('tar', '-C', at('empty'), '--zstd', '-cf', target, '.');
});
afterEach(() => ctx.remove());

const common = (): RequestOptions => ({ config: 'tinyconfig', zfs: 'none', source: at('linux') });

async function build(
  options: Partial<KernelBuildOptions & RequestOptions> = {},
  overwrite = false,
  context: Context = ctx,
): Promise<KernelResult> {
  const request = await parseRequest({ ...common(), ...options });
  return buildKernel(context, request, {
    builder: 'chroot',
    jobsAsked: options.jobs !== undefined,
    resume: false,
    keep: false,
    keepInterrupted: false,
    deleteAlways: false,
    overcommit: true,
    deadline: deadlineIn(600_000),
    ...options,
    output: { folder: output, overwrite },
  });
}

/** Brings the archive of a build that was kept out again, to another folder; and has the build go. */
async function bringOut(folder: string): Promise<void> {
  const before = output;
  output = folder;
  await build({ resume: true });
  output = before;
}

async function failure(building: Promise<unknown>): Promise<Failure> {
  const error = await building.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  if (error instanceof Failure) return error;
  throw new Error(`not a failure: ${String(error)}`);
}

const fails = (phase: string, words: string): Promise<void> => writeFile(at('bin', phase), `${words}\n`);
const mend = (phase: string): Promise<void> => rm(at('bin', phase));
const calls = async (): Promise<string[]> =>
  (await readFile(at('bin', 'calls'), 'utf8')).trimEnd().split('\n');
const places = async (): Promise<string[]> =>
  (await readdir(ctx.paths.builds)).filter((name) => !name.startsWith('.'));
const notices = (): string[] => ctx.events.flatMap((event) => (event.type === 'notice' ? [event.text] : []));

describe('a build', () => {
  it('leaves its archive and its log, and nothing else', async () => {
    const result = await build();
    expect(result.path).toBe(join(output, 'kernel-1.tar.zst'));
    expect((await readdir(output)).sort()).toEqual(['kernel-1.log', 'kernel-1.tar.zst']);
    expect(await places()).toEqual([]);
  });

  it('has no room asked for by its phases, where it goes on whatever the worst case is', async () => {
    await build({ keep: true });
    const [place = ''] = await places();
    const settings = await readFile(join(ctx.paths.build(place).work, 'settings.sh'), 'utf8');
    expect(settings).toContain("NEEDED_KIB='0'\n");
  });

  it('tells where its archive is, if only its place could not be taken away', async () => {
    const emit = (event: ZfsdevEvent): void => {
      if (event.type === 'step-started' && event.step === 'delete') throw new Failure('files', 'it is busy');
    };
    const { message, hint } = await failure(build({}, false, { ...ctx, emit }));
    expect(message).toContain(`the archive is at ${join(output, 'kernel-1.tar.zst')}`);
    expect(message).toContain('could not be deleted: it is busy');
    expect(hint).toMatch(/^look at it: .*\nget rid of it: rm -rf /);
    expect((await readdir(output)).sort()).toEqual(['kernel-1.log', 'kernel-1.tar.zst']);
  });

  it('ends before anything is compiled, where its archive would take the place of another', async () => {
    await mkdir(output);
    await writeFile(join(output, 'kernel-1.tar.zst'), 'mine');
    const { reason, hint } = await failure(build());
    expect(reason).toBe('already-exists');
    expect(hint).toMatch(/--overwrite/);
    expect((await calls()).at(-1)).toBe('config');
    // No sooner if it goes on.
    expect((await failure(build({ resume: true }))).reason).toBe('already-exists');
    expect(await calls()).not.toContainEqual(expect.stringContaining('make'));
    await build({ resume: true }, true);
    expect(await readFile(join(output, 'kernel-1.tar.zst'), 'utf8')).not.toBe('mine');
  });

  it('that was kept gives its archive once more, also where that lies already', async () => {
    await build({ keep: true });
    await build({ keep: true, resume: true });
    expect((await readdir(output)).sort()).toEqual(['kernel-1.log', 'kernel-1.tar.zst']);
    const other = at('other');
    await bringOut(other);
    expect(await places()).toEqual([]);
    expect((await readdir(other)).sort()).toEqual(['kernel-1.log', 'kernel-1.tar.zst']);
  });
});

describe('a build that fails', () => {
  it('stays, and tells how it is removed in words that can be pasted', async () => {
    await fails('make', '! the kernel does not compile');
    const { hint, detail } = await failure(build());
    const [place = ''] = await places();
    const folder = join(ctx.paths.builds, place);
    expect(hint).toMatch(/^go on: the same command with --resume$/m);
    expect(hint).toContain(`rm -rf '${folder}'`);
    expect(detail).toContain(`the whole log: ${join(folder, 'build.log')}`);
  });

  it('for a file that has to be mended is begun anew, and says so', async () => {
    await fails('config', '! options did not survive olddefconfig: CONFIG_A');
    const fragment = at('fragment');
    await writeFile(fragment, 'CONFIG_A=y\n');
    const { hint } = await failure(build({ fragment: [fragment] }));
    expect(hint).toMatch(/^correct the fragment, .*\nbegin anew: the same command without --resume\n/);
    expect(hint).not.toMatch(/^go on/m);
    await writeFile(fragment, 'CONFIG_B=y\n');
    await mend('config');
    await build({ fragment: [fragment] });
    const gone = await failure(
      fails('config', '! options did not survive olddefconfig: CONFIG_A').then(() =>
        build({ deleteAlways: true }, true),
      ),
    );
    expect(gone.hint).toMatch(
      /^correct the fragment, .*\nthe build is deleted, .*\nthe same command without --resume/,
    );
  });

  it('is taken away if that was asked for, all but its log, and nothing is told of what is gone', async () => {
    await fails('make', 'x.o: No space left on device\n! the kernel does not compile');
    const id = buildId(await parseRequest(common()), 'chroot').slice(0, 6);
    for (const name of [`kernel-build-${id}.log`, `kernel-build-${id}-2.log`]) {
      const log = join(output, name);
      const { reason, hint, detail } = await failure(build({ deleteAlways: true }));
      expect(reason).toBe('no-space');
      expect(detail).toContain(`the whole log: ${log}`);
      const [room, ...rest] = hint?.split('\n') ?? [];
      expect(room).toMatch(/^make room \(.*\)$/);
      expect(rest).toEqual([
        `the build is deleted, and its log kept: ${log}`,
        'the same command without --resume begins anew',
      ]);
      expect(await readFile(log, 'utf8')).toContain('the kernel does not compile');
      expect(await places()).toEqual([]);
    }
    expect(await readdir(output)).toHaveLength(2);
  });

  it('ends when its time is up, also if nothing of it is left', async () => {
    await writeFile(at('bin', 'preflight.hangs'), '');
    const { reason, message, hint } = await failure(build({ deadline: deadlineIn(0) }));
    expect({ reason, message }).toEqual({
      reason: 'deadline',
      message: expect.stringContaining('the phase preflight did not end in time') as string,
    });
    expect(hint).toMatch(/^give it longer: --timeout 48h --resume\n/);
  });
});

describe('a build that goes on', () => {
  beforeEach(() => fails('make', 'as: x.o: No space left on device\n! the kernel does not compile'));

  it('has other jobs if they are asked for', async () => {
    await failure(build());
    await mend('make');
    await build({ resume: true, jobs: 3 });
    expect((await calls()).slice(-5)).toEqual(['make 3', 'modules 3', 'zfs 3', 'initrd 3', 'archive 3']);
  });

  it('takes nothing that an earlier run said for a cause', async () => {
    expect((await failure(build())).reason).toBe('no-space');
    await fails('make', '! an earlier run of this build is still at work in there');
    const { reason, message, detail } = await failure(build({ resume: true }));
    expect({ reason, message }).toEqual({
      reason: 'process',
      message: 'an earlier run of this build is still at work in there',
    });
    expect(detail).not.toContain('No space left');
  });

  it('says that a folder is as it was', async () => {
    await failure(build());
    await mend('make');
    await build({ resume: true });
    expect(notices()).toContainEqual(expect.stringContaining(`going on with ${at('linux')} as it was`));
  });

  it('is refused if this host was started anew before it was on the disk', async () => {
    await failure(build());
    await mend('make');
    const [place = ''] = await places();
    const { state, settled } = ctx.paths.build(place);
    await writeFile(state, (await readFile(state, 'utf8')).replace(/"boot": "[^"]+"/, '"boot": "another"'));
    const { reason, message, hint } = await failure(build({ resume: true }));
    expect(reason).toBe('wrong-state');
    expect(message).toMatch(/had only begun when this host was started anew/);
    expect(hint).toMatch(/^to begin anew: leave --resume out; .*cache/);
    await mkdir(dirname(settled), { recursive: true });
    await writeFile(settled, '');
    await build({ resume: true });
    expect(await places()).toEqual([]);
  });

  it('is refused if a file is another than it was begun with', async () => {
    const fragment = at('fragment');
    await writeFile(fragment, 'CONFIG_A=y\n');
    await failure(build({ fragment: [fragment] }));
    await appendFile(fragment, 'CONFIG_B=y\n');
    await mend('make');
    const { reason, message, hint } = await failure(build({ fragment: [fragment], resume: true }));
    expect(reason).toBe('wrong-state');
    expect(message).toContain(`begun with another ${fragment}`);
    expect(hint).toBe('to begin anew: leave --resume out');
    await build({ fragment: [fragment] });
    expect(await places()).toEqual([]);
  });
});

it('a machine that has no build to go on with is not said to have one', async () => {
  const name = machineName(buildId(await parseRequest(common()), 'vm'));
  await stoppedInstance(ctx.paths, name);
  for (const resume of [false, true]) {
    const { reason, message, hint } = await failure(build({ builder: 'vm', resume }));
    expect(reason).toBe('already-exists');
    expect(message).toContain('has no build to go on with');
    expect(hint).toBe(`to begin anew: zfsdev delete --force ${name}`);
  }
});
