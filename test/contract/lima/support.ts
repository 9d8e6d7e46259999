import { spawn, type ChildProcess } from 'node:child_process';
import { mkdir, mkdtemp, readFile, realpath, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseName } from '../../../src/core/names.ts';
import type { Deadline } from '../../../src/host/deadline.ts';
import { resolveSpec } from '../../../src/template/resolve.ts';
import type { Spec } from '../../../src/template/spec.ts';
import { up, type UpResult } from '../../../src/vm/lifecycle.ts';
import { Stage, type ExpectedCall } from '../../fakes/programs.ts';
import { testContext, type TestContext } from '../../support/context.ts';

/** The last one that kept a machine's disk as an overlay on its image, and one that keeps it as one file. */
export const versions = ['2.0.3', '2.2.0'] as const;
export type LimaVersion = (typeof versions)[number];

export const disksOf: Readonly<Record<LimaVersion, readonly string[]>> = {
  '2.0.3': ['diffdisk', 'basedisk'],
  '2.2.0': ['disk'],
};

export const machine = parseName('m1');

/** What a real limactl wrote, its folders shortened to /lima and /images. */
export function recorded(version: LimaVersion, file: string): Promise<string> {
  return readFile(join(import.meta.dirname, '../../recorded/lima', version, file), 'utf8');
}

export type Calls = Readonly<Partial<Record<'limactl' | 'ssh' | 'scp', readonly ExpectedCall[]>>>;

/** Time enough, to the second: it is an argument of limactl's. */
export const patience: Deadline = { total: 600_000, left: () => 600_000 };

/** A state home with a limactl that plays one version, and what a test needs to know beforehand. */
export class LimaHouse {
  readonly version: LimaVersion;
  /** Everything lies below it. */
  readonly root: string;
  /** Where the machine would be in Lima's home. */
  readonly folder: string;
  readonly #agents: ChildProcess[] = [];
  readonly #stage = new Stage();

  constructor(version: LimaVersion, root: string) {
    this.version = version;
    this.root = root;
    this.folder = join(root, 'home/lima', machine);
  }

  static async open(version: LimaVersion = '2.2.0'): Promise<LimaHouse> {
    return new LimaHouse(version, await realpath(await mkdtemp(join(tmpdir(), 'zfsdev a,b-'))));
  }

  get ctx(): Promise<TestContext> {
    return this.play({});
  }

  /** Puts these programs on PATH, in the place of those before; any other call of them fails the test. */
  async play(
    calls: Calls,
    more: { signal?: AbortSignal; env?: Record<string, string> } = {},
  ): Promise<TestContext> {
    const { path } = await this.#stage.play(
      Object.fromEntries(Object.entries(calls).map(([name, expected]) => [name, { calls: expected }])),
    );
    // Lima's own home of the user, which must not be taken; and QEMU as the user wants it, so that it isn't probed.
    const env = {
      LIMA_HOME: '/nowhere',
      QEMU_SYSTEM_X86_64: 'qemu-system-x86_64',
      QEMU_SYSTEM_AARCH64: 'qemu-system-aarch64',
      ...more.env,
    };
    return testContext({ path, folder: this.root, ...more, env });
  }

  /** All calls of programs so far, in their order. */
  async calls(): Promise<string[]> {
    return ((await this.#stage.present?.calls()) ?? []).map((words) => words.join(' '));
  }

  /** The calls of limactl so far, without the flags that are always there. */
  async limactlCalls(): Promise<string[]> {
    const calls = (await this.#stage.present?.calls()) ?? [];
    return calls
      .filter(([name]) => name === 'limactl')
      .map(([, ...argv]) => argv.filter((word) => !/^--(tty|log-format)=/.test(word)).join(' '));
  }

  /** A call of limactl that plays a recording, `stderr`, where one is named. */
  async lima(
    argv: readonly string[],
    file?: string,
    more: Partial<ExpectedCall> = {},
  ): Promise<ExpectedCall> {
    return {
      argv: ['--tty=false', '--log-format=json', ...argv],
      env: { LIMA_HOME: join(this.root, 'home/lima') },
      ...(file === undefined ? {} : { stderr: await recorded(this.version, file) }),
      ...more,
    };
  }

  async asksVersion(): Promise<ExpectedCall> {
    return this.lima(['--version'], undefined, { stdout: await recorded(this.version, 'version.txt') });
  }

  creates(file = 'create.jsonl', more: Partial<ExpectedCall> = {}): Promise<ExpectedCall> {
    const yaml = join(this.root, 'home/instances', machine, 'lima.yaml');
    const disks = more.exitCode ? [] : disksOf[this.version];
    return this.lima(['create', `--name=${machine}`, yaml], file, {
      leaves: {
        [join(this.folder, 'lima.yaml')]: { copyOf: yaml },
        ...Object.fromEntries(disks.map((disk) => [join(this.folder, disk), ''])),
      },
      ...more,
    });
  }

  /** A start that gets as far as a host agent, for which the pid of a real process stands in. */
  starts(pid: number, file?: string, more: Partial<ExpectedCall> = {}): Promise<ExpectedCall> {
    return this.lima(['start', '--timeout=600s', machine], file, {
      leaves: { [join(this.folder, 'ha.pid')]: `${pid}\n`, [join(this.folder, 'ssh.config')]: '' },
      ...more,
    });
  }

  stops(): Promise<ExpectedCall> {
    return this.lima(['stop', machine], undefined, { leaves: { [join(this.folder, 'ha.pid')]: null } });
  }

  stopsByForce(): Promise<ExpectedCall> {
    const gone = ['ha.pid', 'qemu.pid'].map((file) => [join(this.folder, file), null] as const);
    return this.lima(['stop', '--force', machine], 'stop-force.jsonl', { leaves: Object.fromEntries(gone) });
  }

  deletes(): Promise<ExpectedCall> {
    return this.lima(['delete', '--force', machine], 'delete.jsonl', { leaves: { [this.folder]: null } });
  }

  /** ssh to the machine: as root, or by sudo as Lima's own user. */
  ssh(
    as: 'root' | 'sudo',
    words: readonly (string | RegExp)[],
    more: Partial<ExpectedCall> = {},
  ): ExpectedCall {
    return { argv: [...this.sshOptions(as), ...words], ...more };
  }

  sshOptions(as: 'root' | 'sudo'): string[] {
    const socket = join(this.root, 'home/instances', machine, as === 'sudo' ? 'ssh.sock.sudo' : 'ssh.sock');
    const options =
      `PreferredAuthentications=publickey ConnectTimeout=60 ServerAliveInterval=30 ControlMaster=auto`
        .split(' ')
        // ssh splits at spaces what isn't quoted.
        .concat(`ControlPath="${socket}"`, 'ControlPersist=600', 'LogLevel=ERROR');
    return ['-F', join(this.folder, 'ssh.config'), ...options.flatMap((option) => ['-o', option])];
  }

  /** What the guest's own log tells of its provisioning, and the end of the connection that asked. */
  asksProvisioning(words = ''): ExpectedCall[] {
    return [
      this.ssh('sudo', ['-T', `lima-${machine}`, /^exec sudo -n -- sh -c [^]*cloud-init-output/], {
        stdout: words,
      }),
      this.ssh('sudo', ['-O', 'exit', `lima-${machine}`]),
    ];
  }

  /** A process that has this pid file among its arguments, as Lima's host agent and QEMU have. */
  process(pidFile: 'ha.pid' | 'qemu.pid'): number {
    const argv = ['-e', 'setInterval(() => undefined, 1e6)', '--', '--pidfile', join(this.folder, pidFile)];
    const child = spawn(process.execPath, argv, { stdio: 'ignore' });
    this.#agents.push(child);
    if (child.pid === undefined) throw new Error('no process could be started');
    return child.pid;
  }

  spec(): Promise<Spec> {
    return resolveSpec('zfs-test', { name: machine, driver: 'lima' });
  }

  async up(ctx: TestContext, deadline: () => Deadline = () => patience): Promise<UpResult> {
    return up(ctx, await this.spec(), { deadline, overcommit: true, cold: false });
  }

  /** A machine that was made and runs, without a record of the calls that made it. */
  async runningMachine(): Promise<number> {
    const pid = this.process('ha.pid');
    const limactl = [await this.asksVersion(), await this.creates(), await this.starts(pid)];
    await this.up(await this.play({ limactl, ssh: this.asksProvisioning() }));
    return pid;
  }

  async stoppedMachine(): Promise<void> {
    await this.runningMachine();
    await rm(join(this.folder, 'ha.pid'));
  }

  /** Somebody else's machine of the same name. */
  async foreignMachine(): Promise<void> {
    await mkdir(this.folder, { recursive: true });
    await writeFile(join(this.folder, 'lima.yaml'), 'images: []\n');
    await writeFile(join(this.folder, 'disk'), 'precious');
  }

  async close(): Promise<void> {
    for (const agent of this.#agents) agent.kill('SIGKILL');
    try {
      await this.#stage.settle();
    } finally {
      await rm(this.root, { recursive: true, force: true });
    }
  }
}
