import { Failure } from '../core/errors.ts';
import type { Check, CheckResult, Finding } from './check.ts';
import { acceleratorCheck } from './checks/accelerator.ts';
import { qemuCheck, qemuImgCheck, uefiCheck } from './checks/machines.ts';
import {
  keyringCheck,
  limaCheck,
  mke2fsCheck,
  mmdebstrapCheck,
  nodeCheck,
  sshCheck,
  zstdCheck,
} from './checks/programs.ts';
import { homeCheck, spaceCheck, temporarySpaceCheck } from './checks/storage.ts';
import { namespacesCheck, subordinateIdsCheck, uidmapCheck } from './checks/unprivileged.ts';
import type { Host } from './host.ts';
import { packagesFor, typedAsRoot, typedInstall } from './packages.ts';

/** All that zfsdev looks at, in the order in which it is shown. */
export const allChecks: readonly Check[] = [
  nodeCheck,
  qemuCheck,
  qemuImgCheck,
  acceleratorCheck,
  sshCheck,
  uefiCheck,
  mmdebstrapCheck,
  mke2fsCheck,
  zstdCheck,
  keyringCheck,
  uidmapCheck,
  subordinateIdsCheck,
  namespacesCheck,
  homeCheck,
  spaceCheck,
  temporarySpaceCheck,
  limaCheck,
];

/** The checks whose outcome installing packages can change; all of them are quick. */
export const mendableChecks = allChecks.filter((check) => check.mendable);

/** Makes all checks that matter on this host, side by side; one that can't be made is itself a result. */
export async function examine(host: Host, checks: readonly Check[] = allChecks): Promise<CheckResult[]> {
  const applying = checks.filter((check) => check.applies?.(host) ?? true);
  return Promise.all(applying.map(async (check) => resultOf(check, await lookSafely(check, host), host)));
}

/** True if nothing that is needed is missing. */
export function allThere(results: readonly CheckResult[]): boolean {
  return results.every(({ status }) => status !== 'missing');
}

async function lookSafely(check: Check, host: Host): Promise<Finding> {
  try {
    return await check.look(host);
  } catch (error) {
    if (!(error instanceof Failure) || error.reason === 'interrupted') throw error;
    const note = error.detail?.split('\n').at(-1);
    return { status: 'missing', found: error.message, ...(note === undefined ? {} : { note }) };
  }
}

function resultOf(check: Check, finding: Finding, host: Host): CheckResult {
  const optional = check.optional?.(host) ?? false;
  const spared = optional && finding.status === 'missing';
  const fix = fixOf(finding, host);
  const byHandNote =
    finding.install && packagesFor(finding.install, host.manager).length === 0
      ? `install it yourself: ${finding.install.join(', ')}`
      : undefined;
  const note = finding.note ?? byHandNote;
  return {
    id: check.id,
    title: check.title,
    status: spared ? 'weak' : finding.status,
    found: spared ? `${finding.found} (optional)` : finding.found,
    ...(note === undefined ? {} : { note }),
    neededFor: check.neededFor,
    optional,
    ...(fix.length === 0 ? {} : { fix }),
    finding,
  };
}

function fixOf(finding: Finding, host: Host): string[] {
  const install = typedInstall(packagesFor(finding.install ?? [], host.manager), host);
  return [
    ...(install === undefined ? [] : [install]),
    ...(finding.commands ?? []).map((argv) => typedAsRoot(argv, host.user)),
    ...(finding.byHand ?? []),
  ];
}
