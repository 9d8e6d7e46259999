import { plan, reserveOf, type Claim, type FilesystemPlan } from '../budget/admission.ts';
import { adviceFor, type Advice } from '../budget/advice.ts';
import type { Context } from '../host/context.ts';
import { filesystemOf } from '../host/free-space.ts';
import { resolveSpec } from '../template/resolve.ts';
import { worstCaseTotal, type Spec } from '../template/spec.ts';
import { instanceClaims } from '../vm/admission.ts';
import { driverFor } from '../vm/drivers.ts';
import { storageClaims } from '../vm/storage-claims.ts';

/** One template of a plan; sizes in bytes. */
export interface PlannedMachine {
  readonly spec: Spec;
  /** Its worst case inside the guest, all parts together. */
  readonly total: number;
  /** The most its disk, and those of its storage, can take on the host. */
  readonly bound: number;
  /** It is there to build something and be deleted. */
  readonly temporary: boolean;
}

export interface DiskPlan {
  readonly machines: readonly PlannedMachine[];
  /** The most that all of them take together on the host, and what stays when those for building are deleted. */
  readonly peak: number;
  readonly steady: number;
  /** Every host filesystem with these machines and all that is there already. */
  readonly filesystems: readonly FilesystemPlan[];
  readonly fits: boolean;
  readonly advice: Advice;
}

/** What machines of these templates would take in the worst case, beside all that is there. @throws Failure */
export async function planDisks(ctx: Context, templates: readonly string[]): Promise<DiskPlan> {
  const specs = await Promise.all(templates.map((template) => resolveSpec(template, {})));
  const claims = await Promise.all(specs.map((spec) => driverFor(ctx, spec).claims(spec)));
  const further = await Promise.all(specs.map((spec) => storageClaims(ctx, spec)));
  const ofStorage = (index: number): number =>
    (further[index] ?? []).reduce((sum, { bound, allocated }) => sum + Math.max(0, bound - allocated), 0);
  const machines = specs.map((spec, index): PlannedMachine => ({
    spec,
    total: worstCaseTotal(spec.worstCase),
    bound: (claims[index]?.[0]?.bound ?? spec.disk) + ofStorage(index),
    temporary: spec.pool === undefined,
  }));
  const sum = (all: readonly PlannedMachine[]): number => all.reduce((total, { bound }) => total + bound, 0);
  const filesystems = await plan(
    [...(await instanceClaims(ctx)), ...distinct(claims.flat())],
    reserveOf(ctx.env),
  );
  const { free } = await filesystemOf(ctx.paths.instances);
  return {
    machines,
    peak: sum(machines),
    steady: sum(machines.filter(({ temporary }) => !temporary)),
    filesystems,
    fits: filesystems.every(({ left }) => left >= 0),
    advice: adviceFor(free),
  };
}

/** An image that several of them would have to build is built once. */
function distinct(claims: readonly Claim[]): Claim[] {
  return [...new Map(claims.map((claim) => [`${claim.what} ${claim.path}`, claim])).values()];
}
