import { plan, reserveOf } from '../budget/admission.ts';
import { exactBytes, formatBytes } from '../core/bytes.ts';
import type { Context } from '../host/context.ts';
import type { Spec } from '../template/spec.ts';
import { checkBudget, instanceClaims } from './admission.ts';
import { driverFor } from './drivers.ts';

/**
 * What `up` would do, line by line: asked of the same rooms that would do it, the budget check included.
 * @throws Failure `no-space` where `up` would refuse.
 */
export async function plannedUp(ctx: Context, spec: Spec, present: boolean): Promise<string[]> {
  const driver = driverFor(ctx, spec);
  await driver.check(spec);
  if (present) return [`start the instance ${spec.name}`];
  const own = await driver.claims(spec);
  await checkBudget(ctx, spec, own, false);
  const budgets = await plan([...(await instanceClaims(ctx)), ...own], reserveOf(ctx.env));
  return [
    `make the instance ${spec.name}: ${spec.cpus} cpus, ${exactBytes(spec.memory)} memory, ${exactBytes(spec.disk)} disk`,
    ...budgets.map(
      ({ path, growth, left }) =>
        `let everything on ${path} grow by at most ${formatBytes(growth)}, which leaves ${formatBytes(left)} free`,
    ),
    ...(await driver.planned(spec)),
  ];
}
