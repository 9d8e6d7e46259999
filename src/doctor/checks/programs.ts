import { constants } from 'node:fs';
import { join } from 'node:path';
import type { Check, Finding } from '../check.ts';
import { findProgram, isAllowed, type Host } from '../host.ts';
import { isAtLeast, versionIn } from '../../core/version.ts';

/** What Debian 13 has, where a guest's own programs run; package.json says the same. */
export const nodeFloor = '20.19';

const versionDeadline = 20_000;
const onLinux = ({ platform }: Host): boolean => platform === 'linux';

export const nodeCheck: Check = {
  id: 'node',
  title: 'Node',
  neededFor: 'zfsdev itself',
  look: ({ nodeVersion, manager }) =>
    Promise.resolve(
      isAtLeast(nodeVersion, nodeFloor)
        ? { status: 'ok', found: nodeVersion }
        : {
            status: 'missing',
            found: `${nodeVersion}, older than ${nodeFloor}`,
            note: 'https://nodejs.org/en/download has newer ones',
            byHand: [manager === 'brew' ? 'brew install node' : 'sudo npx --yes n lts'],
          },
    ),
};

export const sshCheck: Check = {
  id: 'ssh',
  title: 'ssh client',
  neededFor: 'shell, exec, copy',
  mendable: true,
  look: async (host) => {
    const programs = ['ssh', 'scp', 'ssh-keygen'];
    const paths = await Promise.all(programs.map((program) => findProgram(host.ctx.env, program)));
    const absent = programs.filter((_, i) => paths[i] === undefined);
    if (absent.length > 0) return notInstalled(absent, `not installed: ${absent.join(', ')}`);
    return { status: 'ok', found: (await askVersion(host, 'ssh', ['-V'])) ?? 'there' };
  },
};

export const mmdebstrapCheck: Check = {
  id: 'mmdebstrap',
  title: 'mmdebstrap',
  neededFor: 'building images',
  mendable: true,
  applies: onLinux,
  look: (host) => lookForProgram(host, 'mmdebstrap', ['--version']),
};

export const mke2fsCheck: Check = {
  id: 'mke2fs',
  title: 'mke2fs',
  neededFor: 'building images',
  mendable: true,
  applies: onLinux,
  look: async (host) => {
    // Debian keeps it where an ordinary user's PATH doesn't lead.
    const path = await findProgram(
      host.ctx.env,
      'mke2fs',
      ['usr/sbin', 'sbin'].map((folder) => join(host.root, folder)),
    );
    if (path === undefined) return notInstalled(['mke2fs']);
    return { status: 'ok', found: (await askVersion(host, path, ['-V'])) ?? 'there' };
  },
};

export const zstdCheck: Check = {
  id: 'zstd',
  title: 'zstd',
  neededFor: 'archives of kernels',
  mendable: true,
  optional: () => true,
  look: (host) => lookForProgram(host, 'zstd', ['--version']),
};

const keyring = 'debian-archive-keyring';

export const keyringCheck: Check = {
  id: 'keyring',
  title: 'Debian keys',
  neededFor: 'building images (checks the packages)',
  mendable: true,
  applies: onLinux,
  look: async ({ root }) => {
    const holds = (name: string): Promise<boolean> =>
      isAllowed(join(root, 'usr/share/keyrings', name), constants.R_OK);
    // The very file that image builds name to mmdebstrap.
    if (!(await holds(`${keyring}.gpg`))) return notInstalled([keyring]);
    const trixie = ['gpg', 'pgp'].map((ending) => holds(`debian-archive-trixie-automatic.${ending}`));
    if ((await Promise.all(trixie)).includes(true)) return { status: 'ok', found: 'Debian 13 and before' };
    return {
      status: 'weak',
      found: 'older than Debian 13',
      note: 'the keys of Debian 12 sign trixie too, for a while',
    };
  },
};

export const limaCheck: Check = {
  id: 'limactl',
  title: 'limactl',
  neededFor: 'the lima driver',
  mendable: true,
  optional: ({ platform }) => platform !== 'darwin',
  look: async (host) => {
    const finding = await lookForProgram(host, 'limactl', ['--version']);
    if (finding.status === 'ok' || host.manager === 'brew') return finding;
    return { ...finding, note: 'https://lima-vm.io/docs/installation tells how' };
  },
};

/** Looks for a program on PATH and asks its version. */
async function lookForProgram(host: Host, program: string, ask: readonly string[]): Promise<Finding> {
  if ((await findProgram(host.ctx.env, program)) === undefined) return notInstalled([program]);
  return { status: 'ok', found: (await askVersion(host, program, ask)) ?? 'there' };
}

async function askVersion(host: Host, program: string, ask: readonly string[]): Promise<string | undefined> {
  const { ctx } = host;
  const { stdout, stderr } = await ctx.run([program, ...ask], {
    effect: 'read',
    deadline: versionDeadline,
    signal: ctx.signal,
  });
  // ssh and mke2fs tell theirs on standard error.
  return versionIn(stdout) ?? versionIn(stderr);
}

/** The finding for absent programs (or other things that packages carry); `--fix` installs them. */
export function notInstalled(things: readonly string[], found = 'not installed'): Finding {
  return { status: 'missing', found, install: things };
}
