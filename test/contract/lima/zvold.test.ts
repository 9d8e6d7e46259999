import { connect } from 'node:net';
import { basename } from 'node:path';
import { text } from 'node:stream/consumers';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { parseName } from '../../../src/core/names.ts';
import { readInstance, writeState } from '../../../src/vm/store.ts';
import type { Spec } from '../../../src/template/spec.ts';
import { bringZvold } from '../../../src/zvol/bring.ts';
import { channelTo } from '../../../src/vm/lifecycle.ts';
import { proxyTo } from '../../../src/zvol/proxy.ts';
import type { ExpectedCall } from '../../fakes/programs.ts';
import type { TestContext } from '../../support/context.ts';
import { LimaHouse, machine } from './support.ts';

const folder = '/run/zfsdev-zvold.abc123';
const script = `sh ${folder}/zvold.sh`;
const signal = new AbortController().signal;
let house: LimaHouse;

beforeEach(async () => {
  house = await LimaHouse.open();
  await house.runningMachine();
});
afterEach(() => house.close());

/** A command of root's, by the words that it begins with. */
function root(words: string | RegExp, more: Partial<ExpectedCall> = {}): ExpectedCall {
  const line = typeof words === 'string' ? `exec ${words}` : words;
  return house.ssh('root', ['-T', 'root@lima-m1', line], { times: 1, ...more });
}

const starts = (exitCode: number): ExpectedCall =>
  root(/^exec sh \/usr\/lib\/zfsdev\/zvold\.sh start [0-9a-f]{64}$/, { exitCode });
const makesFolder = (): ExpectedCall => root('mktemp -d /run/zfsdev-zvold.XXXXXX', { stdout: `${folder}\n` });
const asksMissing = (packages = ''): ExpectedCall => root(`${script} missing`, { stdout: packages });
const installs = (more: Partial<ExpectedCall> = {}): ExpectedCall =>
  root(new RegExp(`^exec ${script} install ${folder} [0-9a-f]{64}$`), more);
const tidies = (): ExpectedCall => root(`rm -rf ${folder}`);

const sent = ['zvold.cjs', 'zfsdev-zvold.socket', 'zfsdev-zvold.service', 'zvold.sh'];
const sends = (): ExpectedCall => ({
  argv: [
    ...house.sshOptions('root'),
    ...['-q', '-r', '-p', '--'],
    ...sent.map((name) => new RegExp(`/${name.replaceAll('.', '\\.')}$`)),
    `root@lima-m1:${folder}/`,
  ],
  times: 1,
});

/** The commands in the guest so far, each by its first words. */
const commands = async (): Promise<string[]> =>
  (await house.calls())
    .map((call) => / exec (.*)$/.exec(call)?.[1] ?? basename(call.split(' ')[0] ?? ''))
    .map((line) => line.replace(/ [0-9a-f]{64}$/, ''));

const progress = ({ events }: TestContext): string[] =>
  events.flatMap((event) => (event.type === 'step-progress' ? [event.text] : []));

describe('the volume manager on a machine of Lima', () => {
  it('is only started where it is there', async () => {
    const ctx = await house.play({ ssh: [starts(0)] });
    await (await proxyTo(ctx, machine)).close();
    expect(await commands()).toEqual(['sh /usr/lib/zfsdev/zvold.sh start']);
    expect(ctx.events).toEqual([]);
  });

  it.each([127, 3])('is brought where it is not, or is another one (%i)', async (exitCode) => {
    const ctx = await house.play({
      ssh: [starts(exitCode), makesFolder(), asksMissing(), installs(), tidies()],
      scp: [sends()],
    });
    await (await proxyTo(ctx, machine)).close();
    expect(await commands()).toEqual([
      'sh /usr/lib/zfsdev/zvold.sh start',
      'mktemp -d /run/zfsdev-zvold.XXXXXX',
      'scp',
      `${script} missing`,
      `${script} install ${folder}`,
      `rm -rf ${folder}`,
    ]);
    expect(progress(ctx)).toEqual(['sending it', 'starting it']);
  });

  it("gets Node and qemu-img from the machine's distribution, and tells so", async () => {
    const packages = root(`${script} packages nodejs qemu-utils`);
    const ctx = await house.play({
      ssh: [starts(127), makesFolder(), asksMissing('nodejs\nqemu-utils\n'), packages, installs(), tidies()],
      scp: [sends()],
    });
    await (await proxyTo(ctx, machine)).close();
    expect(progress(ctx)[1]).toContain('installing nodejs and qemu-utils from the distribution');
  });

  it('is not there without Node, and the words of apt tell why', async () => {
    const stderr = "zvold.sh: the package lists can't be fetched: is there a network?\n";
    const ctx = await house.play({
      ssh: [
        starts(127),
        makesFolder(),
        asksMissing('nodejs\n'),
        root(`${script} packages nodejs`, { exitCode: 1, stderr }),
        tidies(),
      ],
      scp: [sends()],
    });
    await expect(proxyTo(ctx, machine)).rejects.toMatchObject({
      reason: 'guest',
      message: 'the volume manager can\'t be brought to "m1"',
      detail: stderr.trim(),
    });
    expect((await commands()).at(-1)).toBe(`rm -rf ${folder}`);
  });

  it('does without qemu-img where that can not be had, with a warning', async () => {
    const ctx = await house.play({
      ssh: [
        starts(127),
        makesFolder(),
        asksMissing('qemu-utils\n'),
        root(`${script} packages qemu-utils`, { exitCode: 1, stderr: 'no network\n' }),
        installs(),
        tidies(),
      ],
      scp: [sends()],
    });
    await (await proxyTo(ctx, machine)).close();
    expect(ctx.events).toContainEqual({
      type: 'notice',
      level: 'warning',
      text: '"m1" has no qemu-utils, so qcow2 images can be neither imported nor exported there: no network',
    });
  });

  it('is not brought to a machine without a pool', async () => {
    const ctx = await house.ctx;
    const { spec, ...found } = readInstance(ctx, machine);
    const without = Object.fromEntries(
      Object.entries(spec).filter(([key]) => key !== 'pool'),
    ) as unknown as Spec;
    const instance = { ...found, spec: without };
    await expect(bringZvold(ctx, instance, await channelTo(ctx, machine))).rejects.toMatchObject({
      reason: 'wrong-state',
      message: '"m1" has no pool, and so no volumes',
    });
  });

  it('is not brought to a machine that somebody else made', async () => {
    const before = await house.ctx;
    const { state } = readInstance(before, machine);
    await writeState(before, parseName('m1'), { ...state, adopted: true });
    await expect(proxyTo(await house.ctx, machine)).rejects.toMatchObject({
      reason: 'unsupported',
      message: '"m1" was made by somebody else, and zfsdev installs nothing in it',
    });
  });
});

describe('the way to its socket', () => {
  const leads = (more: Partial<ExpectedCall>): ExpectedCall =>
    root(/^exec node -e '.*' \/run\/zfsdev\/zvold\.sock$/, more);

  it('goes through ssh alone, and begins when the connection stands', async () => {
    const ctx = await house.play({ ssh: [starts(0), leads({ stdout: '\nfrom zvold' })] });
    const proxy = await proxyTo(ctx, machine);
    try {
      expect(await text(connect(proxy.path))).toBe('from zvold');
      expect(proxy.problem()).toBeUndefined();
    } finally {
      await proxy.close();
    }
  });

  it("is closed with the guest's words where nothing listens", async () => {
    const words = 'connect ENOENT /run/zfsdev/zvold.sock';
    const ctx = await house.play({ ssh: [starts(0), leads({ exitCode: 1, stderr: `${words}\n` })] });
    const proxy = await proxyTo(ctx, machine);
    try {
      expect(await text(connect(proxy.path))).toBe('');
      expect(proxy.problem()).toMatchObject({
        reason: 'guest',
        message: '/run/zfsdev/zvold.sock in "m1" can\'t be reached',
        detail: words,
      });
    } finally {
      await proxy.close();
    }
  });

  it('does not take what a login script prints for an answer', async () => {
    const ctx = await house.play({ ssh: [leads({ stdout: 'Welcome!\n', hangs: true })] });
    const channel = await channelTo(ctx, machine);
    await expect(channel.connect('/run/zfsdev/zvold.sock', signal)).rejects.toMatchObject({
      reason: 'guest',
      detail: 'Welcome!',
    });
  });

  it('is none where ssh ends without a word', async () => {
    const channel = await channelTo(await house.play({ ssh: [leads({})] }), machine);
    await expect(channel.connect('/run/zfsdev/zvold.sock', signal)).rejects.toMatchObject({
      reason: 'guest',
    });
  });

  it('ends with the command that is interrupted', async () => {
    const ctx = await house.play({ ssh: [leads({ hangs: true })] });
    const channel = await channelTo(ctx, machine);
    const interrupt = new AbortController();
    const way = channel.connect('/run/zfsdev/zvold.sock', interrupt.signal);
    const failed = expect(way).rejects.toMatchObject({ reason: 'interrupted' });
    interrupt.abort();
    await failed;
  });
});
