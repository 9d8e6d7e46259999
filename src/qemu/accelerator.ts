import { constants } from 'node:fs';
import { access, mkdtemp, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import * as v from 'valibot';
import { Failure, hasCode } from '../core/errors.ts';
import { bootId } from '../host/boot.ts';
import type { Context } from '../host/context.ts';
import { makePrivateFolder, readIfExists, writeFileAtomically } from '../host/files.ts';
import { board } from './argv.ts';
import { findQemu, fingerprint } from './binary.ts';
import type { Accelerator, Architecture } from './machine.ts';
import { probeGuest } from './probe-guest.ts';

export interface AcceleratorAnswer {
  readonly accelerator: Accelerator;
  /** One sentence for the user; empty where the user chose. */
  readonly reason: string;
  /** What would make it faster, where something would. */
  readonly hint?: string;
}

export interface AcceleratorQuestion {
  readonly architecture: Architecture;
  /** `auto` probes; all others are taken at their word. */
  readonly choice: Accelerator | 'auto';
  /** Probe again, whatever was found before. */
  readonly refresh?: boolean;
  /** Milliseconds for the probe guest, which needs a twentieth of a second where all is well. */
  readonly deadline?: number;
  /** Tests pass their own. */
  readonly platform?: NodeJS.Platform;
  readonly kvmDevice?: string;
}

const defaultDeadline = 5_000;

/**
 * Decides what runs the guests' CPUs: by running a tiny guest once, because a device node that opens proves nothing.
 * The answer is remembered until the host boots, QEMU changes, or access to /dev/kvm does.
 * @throws Failure `dependency` if QEMU is missing, `interrupted`, `files` if the answer can't be kept.
 */
export async function chooseAccelerator(
  ctx: Context,
  question: AcceleratorQuestion,
): Promise<AcceleratorAnswer> {
  if (question.choice !== 'auto') return { accelerator: question.choice, reason: '' };
  const { binary } = await findQemu(ctx, question.architecture);
  const access = await hardwareAccess(question);
  const key = [await bootId(ctx), await fingerprint(binary), question.architecture, access.key].join('\n');
  const known = question.refresh ? undefined : parseAnswer(readIfExists(ctx.paths.accelerator));
  if (known?.key === key) return known.answer;
  const answer = await decide(ctx, binary, question, access);
  if (!ctx.dryRun) await keep(ctx, { key, answer });
  return answer;
}

/** What this user can reach of the host's virtualisation, before anything is run. */
type HardwareAccess =
  | { readonly key: string; readonly accelerator: 'kvm' | 'hvf' }
  | {
      readonly key: string;
      readonly accelerator: undefined;
      readonly reason: string;
      readonly hint?: string;
    };

async function hardwareAccess(question: AcceleratorQuestion): Promise<HardwareAccess> {
  if ((question.platform ?? process.platform) === 'darwin') return { key: 'hvf', accelerator: 'hvf' };
  const device = question.kvmDevice ?? '/dev/kvm';
  try {
    const { mode, uid, gid } = await stat(device);
    await access(device, constants.R_OK | constants.W_OK);
    return { key: `${device}:${mode}:${uid}:${gid}:allowed`, accelerator: 'kvm' };
  } catch (error) {
    if (hasCode(error, 'ENOENT', 'ENOTDIR')) {
      return {
        key: `${device}:absent`,
        accelerator: undefined,
        reason: `this host has no ${device}; using TCG (slower)`,
        hint: 'turn virtualisation on in the firmware, or nested virtualisation where this host is itself a VM',
      };
    }
    return {
      key: `${device}:refused`,
      accelerator: undefined,
      reason: `${device} is there, but this user may not open it; using TCG (slower)`,
      hint: 'sudo usermod -aG kvm "$USER"   (then log in anew)',
    };
  }
}

async function decide(
  ctx: Context,
  binary: string,
  question: AcceleratorQuestion,
  hardware: HardwareAccess,
): Promise<AcceleratorAnswer> {
  const { accelerator } = hardware;
  if (accelerator === undefined) {
    const { reason, hint } = hardware;
    return { accelerator: 'tcg', reason, ...(hint === undefined ? {} : { hint }) };
  }
  const deadline = question.deadline ?? defaultDeadline;
  const name = accelerator === 'kvm' ? 'KVM' : 'The Hypervisor framework';
  const outcome = await probe(ctx, { binary, architecture: question.architecture, accelerator, deadline });
  if (outcome.works) return { accelerator, reason: `${name} works: a test guest ran in it` };
  return {
    accelerator: 'tcg',
    reason: `${name} is here, but a test guest ${outcome.why}; using TCG (slower)`,
    hint: `--accel ${accelerator} takes it all the same`,
  };
}

export type ProbeOutcome = { readonly works: true } | { readonly works: false; readonly why: string };

/**
 * Boots the probe guest under one accelerator, with the board and CPU of real machines. It always ends: by itself, or
 * by SIGKILL at the deadline (a CPU that hangs in the host's kernel may not heed less).
 * @throws Failure `interrupted`, `dependency`; `files` if the guest can't be written.
 */
export async function probe(
  ctx: Context,
  what: {
    readonly binary: string;
    readonly architecture: Architecture;
    readonly accelerator: Accelerator;
    /** Milliseconds. */
    readonly deadline: number;
  },
): Promise<ProbeOutcome> {
  const guest = probeGuest(what.architecture);
  const folder = await mkdtemp(join(ctx.env['TMPDIR'] ?? tmpdir(), 'zfsdev-probe-'));
  const file = join(folder, 'guest.bin');
  try {
    await writeFile(file, guest.image);
    const { exitCode } = await ctx.run(probeArgv(what, guest.arguments(file)), {
      // Nothing of the user's changes, and --dry-run must know the accelerator too.
      effect: 'read',
      deadline: what.deadline,
      signal: ctx.signal,
      killSignal: 'SIGKILL',
      accept: [guest.success],
    });
    return exitCode === guest.success
      ? { works: true }
      : { works: false, why: `ended with exit code ${exitCode}` };
  } catch (error) {
    if (!(error instanceof Failure)) throw error;
    if (error.reason === 'deadline') {
      const where = what.architecture === 'x86_64' ? 'get through long mode' : 'end';
      return { works: false, why: `did not ${where} in ${what.deadline / 1000} s` };
    }
    if (error.reason === 'process') return { works: false, why: whyItFailed(error) };
    throw error;
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

function probeArgv(
  what: { readonly binary: string; readonly architecture: Architecture; readonly accelerator: Accelerator },
  guest: readonly string[],
): [string, ...string[]] {
  return [
    what.binary,
    ...['-nodefaults', '-no-user-config', '-display', 'none'],
    ...board(what.architecture, what.accelerator),
    ...['-m', 'size=32M', '-no-reboot'],
    ...guest,
  ];
}

/** QEMU's first complaint says why; those after it are consequences. */
function whyItFailed(failure: Failure): string {
  const words = failure.detail?.split('\n')[0]?.replace(/^qemu-system-\w+: /, '');
  return words ? `made QEMU fail ("${words}")` : `made QEMU fail (${failure.message})`;
}

const cacheSchema = v.object({
  key: v.string(),
  answer: v.object({
    accelerator: v.picklist(['kvm', 'hvf', 'tcg']),
    reason: v.string(),
    hint: v.exactOptional(v.string()),
  }),
});
type Cached = v.InferOutput<typeof cacheSchema>;

/** A cache that can't be understood is none: the probe is run again, and the file replaced. */
function parseAnswer(text: string | undefined): Cached | undefined {
  if (text === undefined) return undefined;
  try {
    const result = v.safeParse(cacheSchema, JSON.parse(text));
    return result.success ? result.output : undefined;
  } catch (error) {
    if (error instanceof SyntaxError) return undefined;
    throw error;
  }
}

async function keep(ctx: Context, cached: Cached): Promise<void> {
  await makePrivateFolder(ctx.paths.home);
  await writeFileAtomically(ctx.paths.accelerator, `${JSON.stringify(cached, null, 2)}\n`);
}
