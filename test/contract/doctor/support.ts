import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import type { ZfsdevEvent } from '../../../src/core/events.ts';
import type { HostOverrides } from '../../../src/doctor/host.ts';
import type { Context } from '../../../src/host/context.ts';
import { resolvePaths } from '../../../src/host/paths.ts';
import { createRun } from '../../../src/host/run.ts';
import { fakePrograms, type FakeProgram, type FakePrograms } from '../../fakes/programs.ts';

export const qemu = process.arch === 'arm64' ? 'qemu-system-aarch64' : 'qemu-system-x86_64';
export const qemuPackage = process.arch === 'arm64' ? 'qemu-system-arm' : 'qemu-system-x86';

/** Real words of the programs' versions in Debian 12. */
export const present: Readonly<Record<string, FakeProgram>> = {
  [qemu]: answers(['--version'], 'QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18)\n'),
  'qemu-img': answers(['--version'], 'qemu-img version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18)\n'),
  ssh: { calls: [{ argv: ['-V'], stderr: 'OpenSSH_9.2p1 Debian-2+deb12u7, OpenSSL 3.0.17 1 Jul 2025\n' }] },
  scp: { calls: [] },
  'ssh-keygen': { calls: [] },
  mmdebstrap: answers(['--version'], 'mmdebstrap 1.3.5\n'),
  mke2fs: {
    calls: [{ argv: ['-V'], stderr: 'mke2fs 1.47.0 (5-Feb-2023)\n\tUsing EXT2FS Library version 1.47.0\n' }],
  },
  zstd: answers(['--version'], '*** Zstandard CLI (64-bit) v1.5.4, by Yann Collet ***\n'),
  newuidmap: { calls: [] },
  limactl: answers(['--version'], 'limactl version 2.2.0\n'),
};

function answers(argv: readonly string[], stdout: string): FakeProgram {
  return { calls: [{ argv, stdout }] };
}

/** The programs of `present`, some of them absent until a call of another brings them. */
export function without(...names: readonly string[]): Record<string, FakeProgram> {
  return Object.fromEntries(
    Object.entries(present).map(([name, program]) => [
      name,
      names.includes(name) ? { ...program, absent: true } : program,
    ]),
  );
}

export const debian = {
  'etc/os-release': 'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nID=debian\n',
  'etc/subuid': 'ada:100000:65536\n',
  'etc/subgid': 'ada:100000:65536\n',
  'usr/share/keyrings/debian-archive-keyring.gpg': '',
  'usr/share/keyrings/debian-archive-trixie-automatic.gpg': '',
  'var/lib/apt/lists/mirror.example_debian_dists_bookworm_main_binary-amd64_Packages': '',
};

export interface Scene {
  readonly ctx: Context;
  readonly host: HostOverrides;
  readonly fakes: FakePrograms;
  readonly events: ZfsdevEvent[];
  /** What was run on the terminal. */
  readonly attached: (readonly string[])[];
  /** Calls that install something: everything but questions about versions and rights. */
  changes(): Promise<string[]>;
  remove(): Promise<void>;
}

export interface SceneOptions {
  readonly programs: Readonly<Record<string, FakeProgram>>;
  readonly files?: Readonly<Record<string, string>>;
  readonly uid?: number;
  readonly platform?: NodeJS.Platform;
  readonly dryRun?: boolean;
  readonly attach?: Context['attach'];
}

/** A host made of fakes: programs on a PATH of their own, files below a root of their own. */
export async function scene(options: SceneOptions): Promise<Scene> {
  const fakes = await fakePrograms(options.programs);
  const root = await mkdtemp(join(tmpdir(), 'zfsdev-root-'));
  for (const [path, text] of Object.entries(options.files ?? debian)) {
    await mkdir(dirname(join(root, path)), { recursive: true });
    await writeFile(join(root, path), text, { mode: path.includes('bin/') ? 0o755 : 0o644 });
  }
  const env = { PATH: fakes.path, HOME: root, ZFSDEV_HOME: join(root, 'home') };
  const dryRun = options.dryRun ?? false;
  const events: ZfsdevEvent[] = [];
  const attached: (readonly string[])[] = [];
  const ctx: Context = {
    env,
    paths: resolvePaths(env),
    run: createRun({ env, dryRun }),
    attach: (argv, how) => {
      attached.push(argv);
      return options.attach?.(argv, how) ?? Promise.resolve(0);
    },
    emit: (event) => events.push(event),
    signal: new AbortController().signal,
    dryRun,
  };
  const uid = options.uid ?? 0;
  return {
    ctx,
    host: {
      platform: options.platform ?? 'linux',
      root,
      temporary: root,
      user: { uid, name: uid === 0 ? 'root' : 'ada' },
    },
    fakes,
    events,
    attached,
    changes: async () => {
      const calls = (await fakes.calls()).map((argv) => argv.join(' '));
      return calls.filter((call) => /install|update|usermod/.test(call));
    },
    remove: async () => {
      await fakes.remove();
      await rm(root, { recursive: true, force: true });
    },
  };
}
