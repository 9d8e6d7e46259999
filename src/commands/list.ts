import { exactBytes, formatBytes } from '../core/bytes.ts';
import { actualSize } from '../host/files.ts';
import { table } from '../ui/table.ts';
import type { Tone } from '../ui/style.ts';
import type { Inspection, Status } from '../vm/instance.ts';
import { inspect, instanceNames } from '../vm/store.ts';
import type { Session } from './session.ts';

const tones: Readonly<Record<Status, Tone>> = {
  creating: 'weak',
  starting: 'weak',
  running: 'good',
  stopped: 'faint',
  broken: 'bad',
};

/** `zfsdev list`: every instance, damaged ones included. */
export async function list(session: Session): Promise<void> {
  const { ctx } = session;
  const names = await instanceNames(ctx);
  const looks = await Promise.all(
    names.map(async (name) => {
      const found = await inspect(ctx, name);
      return found && { found, actual: await actualSize(ctx.paths.instance(name).disk) };
    }),
  );
  // One that was deleted while we looked is no longer there.
  const present = looks.filter((look) => look !== undefined);
  await session.answer({ instances: present.map(({ found, actual }) => document(found, actual)) }, () =>
    present.length === 0
      ? 'There are no instances yet. zfsdev up zfs-test makes one.\n'
      : `${table(
          columns,
          present.map(({ found, actual }) => row(session, found, actual)),
          session.width,
        )}\n${reasons(present.map(({ found }) => found))}`,
  );
}

const columns = [
  { title: 'NAME' },
  { title: 'STATUS' },
  { title: 'TEMPLATE', optional: 2, flexible: true },
  { title: 'CPUS', align: 'right', optional: 4 },
  { title: 'MEMORY', align: 'right', optional: 3 },
  { title: 'VIRTUAL', align: 'right' },
  { title: 'ACTUAL', align: 'right' },
  { title: 'SSH', align: 'right', optional: 5 },
] as const;

function row({ paint }: Session, found: Inspection, actual: number): string[] {
  const spec = found.instance?.spec;
  const port = found.status === 'running' ? found.instance.state.sshPort : undefined;
  return [
    found.name,
    paint(tones[found.status], found.status) + (found.protected ? ' (protected)' : ''),
    spec?.template ?? '-',
    spec ? String(spec.cpus) : '-',
    spec ? exactBytes(spec.memory) : '-',
    spec ? exactBytes(spec.disk) : '-',
    formatBytes(actual),
    port === undefined ? '-' : String(port),
  ];
}

function reasons(found: readonly Inspection[]): string {
  return found
    .map((each) =>
      each.status === 'broken'
        ? `\n${each.name} is broken: ${each.reason}\n  zfsdev delete ${each.name} removes it\n`
        : '',
    )
    .join('');
}

function document(found: Inspection, actual: number): object {
  const { instance } = found;
  return {
    name: found.name,
    status: found.status,
    ...(found.status === 'broken' ? { reason: found.reason } : {}),
    protected: found.protected,
    ...(instance
      ? {
          template: instance.spec.template,
          driver: instance.state.driver,
          cpus: instance.spec.cpus,
          memoryBytes: instance.spec.memory,
          virtualBytes: instance.spec.disk,
          created: instance.state.created,
        }
      : {}),
    actualBytes: actual,
    ...(found.status === 'running' ? { sshPort: found.instance.state.sshPort, pid: found.pid } : {}),
  };
}
