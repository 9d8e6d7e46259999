import { Failure } from '../core/errors.ts';
import type { Context } from '../host/context.ts';
import type { Instance } from '../vm/instance.ts';
import { driverOf } from '../vm/drivers.ts';

/** What a guest says of its own disk, in bytes. */
export interface GuestUsage {
  readonly rootTotal: number;
  readonly rootUsed: number;
  readonly pools: readonly { readonly name: string; readonly size: number; readonly allocated: number }[];
  /** Blocks of the files that the template's pool lies on, which count in `rootUsed`. */
  readonly poolFiles: number;
  /** What `clean` would remove, by kind. */
  readonly cleanable: Readonly<Record<CleanableKind, number>>;
}

export type CleanableKind = 'packages' | 'source' | 'logs';

/** Where things lie that `clean` removes; shell patterns. The journal is asked in its own way. */
export const cleanable: Readonly<Record<CleanableKind, string>> = {
  packages: '/var/cache/apt/archives/*.deb /var/cache/apt/*.bin /var/lib/apt/lists/*_*',
  source: '/usr/src/linux /usr/src/linux-[0-9]*',
  logs: '/var/log/*.gz /var/log/*.[0-9] /var/log/*.old /var/log/*/*.gz /var/log/*/*.[0-9] /var/log/journal/*/*@*',
};

/** What a template's pool lies on. */
export const poolFiles = '/zfs-disks/*.img';

/** One word and figures a line; nothing that isn't there is an error. */
const script = [
  `df -B1 --output=size,used / | sed -n '2s/^/root /p'`,
  ...Object.entries(cleanable).map(
    ([kind, patterns]) =>
      `echo ${kind} $(du -sB1 ${patterns} 2>/dev/null | awk '{ sum += $1 } END { print sum + 0 }')`,
  ),
  `echo files $(du -cB1 ${poolFiles} 2>/dev/null | tail -n 1 | cut -f 1)`,
  `command -v zpool >/dev/null && zpool list -Hp -o name,size,alloc | sed 's/^/pool /'`,
  'true',
].join('\n');

const patience = 20_000;

/** Asks a running guest. @throws Failure as the channel; `guest` if it answers something else. */
export async function askGuestUsage(ctx: Context, instance: Instance): Promise<GuestUsage> {
  const channel = driverOf(ctx, instance).channel(instance);
  const { stdout } = await channel.exec(['sh', '-c', script], { deadline: patience, signal: ctx.signal });
  const lines = stdout.split('\n').map((line) => line.trim().split(/\s+/));
  const figures = (name: string): number[] =>
    lines
      .find(([word]) => word === name)
      ?.slice(1)
      .map(Number) ?? [];
  const [rootTotal, rootUsed] = figures('root');
  if (rootTotal === undefined || rootUsed === undefined) {
    throw new Failure('guest', `"${instance.name}" does not tell what its disk holds`, { detail: stdout });
  }
  return {
    rootTotal,
    rootUsed,
    pools: lines
      .filter(([word]) => word === 'pool')
      .map(([, name = '', size, allocated]) => ({ name, size: Number(size), allocated: Number(allocated) })),
    poolFiles: figures('files')[0] ?? 0,
    cleanable: {
      packages: figures('packages')[0] ?? 0,
      source: figures('source')[0] ?? 0,
      logs: figures('logs')[0] ?? 0,
    },
  };
}
