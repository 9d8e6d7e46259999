import { bytes, exactBytes, formatBytes } from '../core/bytes.ts';
import type { Context } from '../host/context.ts';
import { actualSize } from '../host/files.ts';
import type { Spec } from '../template/spec.ts';
import { disksAmong } from '../template/storage.ts';
import { table } from '../ui/table.ts';
import type { Tone } from '../ui/style.ts';
import type { Inspection, Status } from '../vm/instance.ts';
import { machineFiles } from '../vm/machine-files.ts';
import { pauseOf, pauseWords, type Pause } from '../vm/pause.ts';
import { inspect, instanceNames } from '../vm/store.ts';
import type { Session } from './session.ts';

interface Look {
  readonly found: Inspection;
  readonly actual: number;
  readonly pause: Pause | undefined;
}

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
      if (!found) return undefined;
      const [actual, pause] = await Promise.all([diskSize(ctx, found), pauseOf(ctx, found)]);
      return { found, actual, pause };
    }),
  );
  // One that was deleted while we looked is no longer there.
  const present = looks.filter((look) => look !== undefined);
  await session.answer({ instances: present.map(document) }, () =>
    present.length === 0
      ? 'There are no instances yet. zfsdev up zfs-test makes one.\n'
      : `${table(
          columns,
          present.map((look) => row(session, look)),
          session.width,
        )}\n${present.map(reason).join('')}`,
  );
}

/** Of all its disks. A file of the user's own, which may lie anywhere, must not keep the others from being listed. */
async function diskSize(ctx: Context, { name, instance }: Inspection): Promise<number> {
  const { disks } = await machineFiles(ctx, name, instance);
  return disks.reduce((sum, disk) => sum + sizeOf(disk), 0);
}

function sizeOf(disk: string): number {
  try {
    return actualSize(disk);
  } catch {
    return 0;
  }
}

/** What the guest sees, of all disks that it writes to. */
function virtualBytes({ disk, storage }: Spec): number {
  return disksAmong(storage)
    .filter(({ readonly }) => !readonly)
    .reduce<number>((sum, each) => sum + (each.size ?? 0), disk);
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

function row({ paint }: Session, { found, actual, pause }: Look): string[] {
  const spec = found.instance?.spec;
  const port = found.status === 'running' ? found.instance.state.sshPort : undefined;
  return [
    found.name,
    (pause ? paint('bad', 'paused') : paint(tones[found.status], found.status)) +
      (found.protected ? ' (protected)' : ''),
    spec?.template ?? '-',
    spec ? String(spec.cpus) : '-',
    spec ? exactBytes(spec.memory) : '-',
    spec ? exactBytes(bytes(virtualBytes(spec))) : '-',
    formatBytes(actual),
    port === undefined ? '-' : String(port),
  ];
}

function reason({ found, pause }: Look): string {
  const { name } = found;
  if (found.status === 'broken')
    return `\n${name} is broken: ${found.reason}\n  zfsdev delete ${name} removes it\n`;
  return pause ? `\n${name} stands still: ${pauseWords[pause]}\n  zfsdev resume ${name} has it go on\n` : '';
}

function document({ found, actual, pause }: Look): object {
  const { instance } = found;
  return {
    name: found.name,
    status: found.status,
    ...(found.status === 'broken' ? { reason: found.reason } : {}),
    ...(pause === undefined ? {} : { pause }),
    protected: found.protected,
    ...(instance
      ? {
          template: instance.spec.template,
          driver: instance.state.driver,
          cpus: instance.spec.cpus,
          memoryBytes: instance.spec.memory,
          virtualBytes: virtualBytes(instance.spec),
          created: instance.state.created,
        }
      : {}),
    actualBytes: actual,
    ...(found.status === 'running' ? { sshPort: found.instance.state.sshPort, pid: found.pid } : {}),
  };
}
