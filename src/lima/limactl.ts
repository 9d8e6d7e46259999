import * as v from 'valibot';
import { Failure } from '../core/errors.ts';
import type { Context } from '../host/context.ts';
import type { RunOptions, RunResult } from '../host/run.ts';
import { howToInstallLima, limaHas, oldestLima, parseLimaVersion, type LimaVersion } from './version.ts';

export interface LimactlOptions extends Pick<RunOptions, 'effect' | 'deadline' | 'signal' | 'env'> {
  /** Told each message of Lima's log as it comes, without the part of it that spoke. */
  readonly onMessage?: (message: string) => void;
}

const entry = v.object({ level: v.string(), msg: v.string() });

/**
 * Calls limactl on one of its homes, never with a question.
 * @throws Failure `dependency` if there is none, `unsupported` for root, `process` in Lima's own words, `deadline`,
 *   `interrupted`.
 */
export async function limactl(
  ctx: Context,
  home: string,
  args: readonly string[],
  { onMessage, env, ...options }: LimactlOptions,
): Promise<RunResult> {
  try {
    return await ctx.run(['limactl', '--tty=false', '--log-format=json', ...args], {
      ...options,
      env: { ...env, LIMA_HOME: home },
      ...(onMessage
        ? {
            onLine: (line) => {
              const message = messageIn(line);
              if (message) onMessage(message.msg.replace(/^\[\w+\] /, ''));
            },
          }
        : {}),
    });
  } catch (error) {
    if (!(error instanceof Failure)) throw error;
    if (error.reason === 'dependency' && process.platform !== 'darwin') throw missing(error);
    throw error.reason === 'process' ? inItsOwnWords(args[0] ?? '', error) : error;
  }
}

const noImage =
  'is there a network? Run the same command again: Lima begins anew\n(on Linux zfsdev image build --flavour cloud makes an image that need not be downloaded)';

/** Of Linux's packagers few have it. */
function missing(failure: Failure): Failure {
  return new Failure('dependency', failure.message, {
    hint: `install Lima: ${howToInstallLima}\n(or, without it: --driver qemu)`,
    cause: failure,
  });
}

function messageIn(line: string): v.InferOutput<typeof entry> | undefined {
  try {
    const parsed = v.safeParse(entry, JSON.parse(line));
    return parsed.success ? parsed.output : undefined;
  } catch {
    return undefined;
  }
}

function inItsOwnWords(verb: string, failure: Failure): Failure {
  const lines = (failure.detail ?? '').split('\n');
  if (lines.some((line) => line.includes('must not run as the root user'))) {
    return new Failure('unsupported', 'Lima does not run as root', {
      hint: 'run zfsdev as an ordinary user, or with --driver qemu',
      cause: failure,
    });
  }
  const messages = lines.map((line) => messageIn(line));
  const fatal = messages.find((message) => message?.level === 'fatal')?.msg;
  const before = messages.filter((message) => message && message.level !== 'fatal');
  const detail = before.map((message) => message?.msg ?? '').join('\n');
  return new Failure('process', `limactl ${verb} failed: ${fatal ?? failure.message}`, {
    ...(fatal === undefined ? { detail: failure.detail ?? '' } : detail ? { detail } : {}),
    ...(fatal?.includes('failed to download') ? { hint: noImage } : {}),
    cause: failure,
  });
}

/** The version of limactl. @throws Failure `dependency` if it is missing or older than what is supported */
export async function requireLimactl(ctx: Context, home: string): Promise<LimaVersion> {
  const { stdout } = await limactl(ctx, home, ['--version'], {
    effect: 'read',
    deadline: 30_000,
    signal: ctx.signal,
  });
  const text = stdout.trim().split(' ').at(-1) ?? '';
  const version = parseLimaVersion(text);
  if (!version) throw new Failure('dependency', `limactl does not tell its version: ${stdout.trim()}`);
  if (limaHas(version, oldestLima)) return version;
  throw new Failure('dependency', `limactl ${text} is too old: ${oldestLima} or later is needed`, {
    hint: `install a later one: ${howToInstallLima}`,
  });
}

const listing = v.object({
  name: v.string(),
  dir: v.string(),
  cpus: v.number(),
  memory: v.number(),
  disk: v.number(),
  /** `qemu`, `vz` ... */
  vmType: v.optional(v.string()),
});

/** What `limactl list --json` tells of an instance; sizes in bytes, `disk` as configured. */
export type LimaListing = v.InferOutput<typeof listing>;

/** Asks Lima about one instance that is there. @throws Failure as `limactl`; `process` for one it can't make sense of */
export async function listLima(ctx: Context, home: string, name: string): Promise<LimaListing> {
  // By its name: one damaged folder makes older versions fail on the whole list.
  const { stdout } = await limactl(ctx, home, ['list', '--json', name], {
    effect: 'read',
    deadline: 60_000,
    signal: ctx.signal,
  });
  try {
    return v.parse(listing, JSON.parse(stdout.split('\n')[0] ?? ''));
  } catch (error) {
    throw new Failure(
      'process',
      `Lima's instance "${name}" is damaged, or in a form that zfsdev does not know`,
      {
        detail: stdout.slice(0, 500),
        hint: `limactl list ${name}`,
        cause: error,
      },
    );
  }
}
