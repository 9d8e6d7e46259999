import { claimsTable, type FilesystemPlan } from '../budget/admission.ts';
import { exactBytes, formatBytes } from '../core/bytes.ts';
import { ExitCode } from '../core/errors.ts';
import { planDisks, type DiskPlan, type PlannedMachine } from '../storage/plan.ts';
import { table } from '../ui/table.ts';
import type { Session } from './session.ts';

const usual = ['zfs-test', 'kernel-build'];

/** `zfsdev plan`: the worst case of machines that are not made yet; exit code 3 if it doesn't fit. */
export async function plan(session: Session, templates: readonly string[]): Promise<number> {
  const found = await planDisks(session.ctx, templates.length === 0 ? usual : templates);
  await session.answer(document(found), () => text(session, found));
  return found.fits ? ExitCode.done : ExitCode.noSpace;
}

function text(session: Session, { machines, peak, steady, filesystems, fits, advice }: DiskPlan): string {
  const parts = [...new Set(machines.flatMap(({ spec }) => spec.worstCase.map(({ part }) => part)))];
  const columns = [
    { title: 'WORST CASE' },
    ...machines.map(({ spec }) => ({ title: spec.name, align: 'right' as const })),
  ];
  const row = (title: string, size: (machine: PlannedMachine) => string): string[] => [
    title,
    ...machines.map(size),
  ];
  const rows = [
    ...parts.map((part) =>
      row(part, ({ spec }) => {
        const size = spec.worstCase.find((each) => each.part === part)?.size;
        return size === undefined ? '-' : formatBytes(size);
      }),
    ),
    row('in the guest', ({ total }) => formatBytes(total)),
    row('disk (virtual)', ({ spec }) => exactBytes(spec.disk)),
    row('on the host at most', ({ bound }) => formatBytes(bound)),
  ];
  const states = [
    `peak          ${formatBytes(peak)}, all of them at once`,
    `steady state  ${formatBytes(steady)}${steady < peak ? ', once the machine for building is deleted' : ''}`,
  ];
  const verdict = fits ? session.paint('good', 'it fits') : session.paint('bad', "it doesn't fit");
  return `${[
    table(columns, rows, session.width),
    states.join('\n'),
    ...filesystems.map((filesystem) => host(filesystem)),
    `${verdict}; with ${formatBytes(filesystems[0]?.free ?? 0)} free: ${advice.verdict}`,
    advice.steps.map((step) => `  ${step}`).join('\n'),
  ].join('\n\n')}\n`;
}

function host(filesystem: FilesystemPlan): string {
  const { path, left } = filesystem;
  const words = left >= 0 ? `${formatBytes(left)} are left` : `${formatBytes(-left)} are missing`;
  return `on ${path}, with all that is there already:\n${claimsTable(filesystem)}\nin the worst case ${words}`;
}

function document({ machines, peak, steady, filesystems, fits, advice }: DiskPlan): object {
  return {
    fits,
    peakBytes: peak,
    steadyBytes: steady,
    machines: machines.map(({ spec, total, bound, temporary }) => ({
      template: spec.template,
      parts: spec.worstCase.map(({ part, size }) => ({ part, bytes: size })),
      totalBytes: total,
      virtualBytes: spec.disk,
      boundBytes: bound,
      temporary,
    })),
    filesystems: filesystems.map(({ path, free, claims, growth, reserve, left }) => ({
      path,
      freeBytes: free,
      claims: claims.map(({ what, bound, allocated }) => ({
        what,
        boundBytes: bound,
        allocatedBytes: allocated,
      })),
      growthBytes: growth,
      reserveBytes: reserve,
      leftBytes: left,
    })),
    advice: { verdict: advice.verdict, steps: advice.steps },
  };
}
