import { Failure } from '../core/errors.ts';
import { formatBytes, GiB, parseBytes } from '../core/bytes.ts';
import { filesystemOf } from '../host/free-space.ts';

const defaultReserve = 2 * GiB;

/**
 * Bytes kept free on every host filesystem, so that the host itself goes on: `ZFSDEV_RESERVE`, else 2 GiB.
 * @throws Failure `usage` for a size that isn't one
 */
export function reserveOf(env: Readonly<NodeJS.ProcessEnv>): number {
  const text = env['ZFSDEV_RESERVE'];
  if (!text) return defaultReserve;
  try {
    return parseBytes(text);
  } catch (error) {
    if (!(error instanceof Failure)) throw error;
    throw new Failure('usage', `ZFSDEV_RESERVE: ${error.message}`, {
      hint: 'for instance ZFSDEV_RESERVE=4GiB',
    });
  }
}

/** Something that can grow on the host. */
export interface Claim {
  readonly what: string;
  /** Where its bytes are or will be. */
  readonly path: string;
  /** The most it can ever take, in bytes: `qemu-img measure`'s fully allocated size, for a disk. */
  readonly bound: number;
  /** What it has allocated already. */
  readonly allocated: number;
}

/** All claims on one host filesystem against its free space. */
export interface FilesystemPlan {
  readonly path: string;
  readonly free: number;
  readonly total: number;
  readonly claims: readonly Claim[];
  /** The most that all of them together can still grow. */
  readonly growth: number;
  readonly reserve: number;
  /** Free space in the worst case, less the reserve; negative if it doesn't fit. */
  readonly left: number;
}

/** Sums up claims for each host filesystem; `reserve` bytes of each are not to be had. */
export async function plan(claims: readonly Claim[], reserve: number): Promise<FilesystemPlan[]> {
  const byDevice = new Map<number, { path: string; free: number; total: number; claims: Claim[] }>();
  const known = new Map<string, Awaited<ReturnType<typeof filesystemOf>>>();
  for (const claim of claims) {
    const filesystem = known.get(claim.path) ?? (await filesystemOf(claim.path));
    known.set(claim.path, filesystem);
    const group = byDevice.get(filesystem.device) ?? { ...filesystem, claims: [] };
    group.claims.push(claim);
    byDevice.set(filesystem.device, group);
  }
  return [...byDevice.values()].map(({ path, free, total, claims: group }) => {
    const growth = group.reduce((sum, claim) => sum + Math.max(0, claim.bound - claim.allocated), 0);
    return { path, free, total, claims: group, growth, reserve, left: free - growth - reserve };
  });
}

/**
 * Refuses when the worst case of everything, or the space a newcomer of this kind needs to be comfortable, doesn't fit.
 * @param needed `what` as it reads after "in the worst case"; `free`: bytes asked for besides the bounds (the templates'
 *   own threshold).
 * @throws Failure `no-space` (exit 3) with the table of what takes what.
 */
export function admit(
  plans: readonly FilesystemPlan[],
  needed: { readonly what: string; readonly path: string; readonly free: number },
): void {
  for (const filesystem of plans) {
    const short = Math.max(
      -filesystem.left,
      filesystem.path === needed.path ? needed.free - filesystem.free : 0,
    );
    if (short <= 0) continue;
    throw new Failure(
      'no-space',
      `in the worst case ${needed.what} doesn't fit on ${filesystem.path}: ${formatBytes(short)} too little`,
      {
        detail: claimsTable(filesystem, needed),
        hint: 'zfsdev usage tells what takes it; zfsdev delete NAME, zfsdev warm prune and zfsdev image prune give it back\nor go on at your own risk with --overcommit',
        data: { plan: filesystem, short },
      },
    );
  }
}

/** What takes what on one filesystem, worst first. */
export function claimsTable(
  filesystem: FilesystemPlan,
  needed?: { readonly what: string; readonly free: number },
): string {
  const rows: [string, number][] = [
    ...[...filesystem.claims]
      .map((claim): [string, number] => [
        `${claim.what} can still grow by`,
        Math.max(0, claim.bound - claim.allocated),
      ])
      .filter(([, growth]) => growth > 0)
      .sort((a, b) => b[1] - a[1]),
    ['reserve for the host', filesystem.reserve],
    ['free now', filesystem.free],
    ...(needed && needed.free > 0
      ? [[`free space wanted before ${needed.what} is made`, needed.free] as [string, number]]
      : []),
  ];
  const width = Math.max(...rows.map(([what]) => what.length));
  return rows.map(([what, size]) => `${what.padEnd(width)}  ${formatBytes(size).padStart(9)}`).join('\n');
}
