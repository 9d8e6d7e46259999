import { Failure } from '../core/errors.ts';
import { step, type StepId } from '../core/events.ts';
import type { Context } from '../host/context.ts';
import { poll, type Deadline } from '../host/deadline.ts';
import { readIfExists } from '../host/files.ts';
import { stripVTControlCharacters } from 'node:util';
import type { Spec } from '../template/spec.ts';

/** One thing that has to come true before a machine is ready. */
interface Probe {
  readonly step: StepId;
  readonly title: string;
  /** The event of the guest that proves it. */
  readonly passes: (event: string) => boolean;
  readonly hint: string;
}

function probesOf(spec: Spec): Probe[] {
  const pool = spec.pool;
  return [
    {
      step: 'boot',
      title: 'Booting',
      passes: (event) => event === 'systemd' || event === 'ready',
      hint: 'the kernel or the initrd did not get through; the console tells where',
    },
    ...(pool
      ? [
          {
            step: 'pool' as const,
            title: `Waiting for the pool ${pool.name}`,
            passes: (event: string) => event === `pool ${pool.name} ONLINE`,
            hint: 'the ZFS module or the pool did not come up; the console tells why',
          },
        ]
      : []),
    {
      step: 'channel',
      title: 'Waiting for the command channel',
      passes: (event) => event === 'ready',
      hint: 'the agent or ssh in the guest did not come up; the console tells why',
    },
  ];
}

/** The files and questions readiness stands on. */
export interface Guest {
  readonly name: string;
  readonly eventLog: string;
  readonly consoleLog: string;
  readonly isAlive: () => Promise<boolean>;
  /** Whether it stands still though its process runs: why, in words. */
  readonly standsStill: () => Promise<string | undefined>;
}

/** Milliseconds between two questions whether the machine stands still, which disturb QEMU a little. */
const stillEvery = 2_000;

/**
 * Waits until the guest says that it is ready. Ends by success, by the deadline, by a failure the guest reports, or by
 * the machine's death, whichever comes first; an error carries the tail of the console.
 */
export async function waitUntilReady(
  ctx: Context,
  spec: Spec,
  guest: Guest,
  deadline: Deadline,
): Promise<void> {
  for (const probe of probesOf(spec)) {
    await step(ctx.emit, probe.step, probe.title, async (progress) => {
      let asked = performance.now();
      const look = async (): Promise<true | undefined> => {
        const passed = await check(probe, guest, progress);
        if (passed || performance.now() - asked < stillEvery) return passed;
        asked = performance.now();
        await refuseStandstill(guest);
        return undefined;
      };
      try {
        await poll(probe.title.toLowerCase(), look, {
          deadline,
          signal: ctx.signal,
          longest: 100,
        });
      } catch (error) {
        throw explain(error, probe.hint, guest);
      }
    });
  }
}

/** A host without room pauses the guest, which would not get ready however long one waits. */
export async function refuseStandstill({ name, standsStill }: Guest): Promise<void> {
  const why = await standsStill();
  if (why === undefined) return;
  throw new Failure('no-space', `the machine "${name}" stands still: ${why}`, {
    hint: 'zfsdev usage tells what takes the room',
  });
}

async function check(
  probe: Probe,
  guest: Guest,
  progress: (text: string) => void,
): Promise<true | undefined> {
  // Asked before the events are read: a machine that ends right after its last event must still be heard.
  const alive = await guest.isAlive();
  const events = readEvents(guest.eventLog);
  const failed = events.find((event) => event.startsWith('failed '));
  if (failed)
    throw new Failure('guest', `the guest "${guest.name}" reports: ${failed.slice('failed '.length)}`);
  if (events.some(probe.passes)) return true;
  // A kernel that panics in an interrupt may stand still instead of ending the machine.
  if (/Kernel panic/.test(consoleOf(guest))) {
    throw new Failure('guest', `the kernel of "${guest.name}" panicked`);
  }
  if (!alive) throw new Failure('guest', `the machine "${guest.name}" ended before it was ready`);
  const latest = events.at(-1);
  if (latest) progress(`guest: ${latest}`);
  return undefined;
}

/** The guest's events so far; a line that is still being written is left for the next look. */
function readEvents(eventLog: string): string[] {
  const text = readIfExists(eventLog) ?? '';
  return text
    .slice(0, text.lastIndexOf('\n') + 1)
    .split('\n')
    .map((line) => line.trim())
    .filter((line) => line !== '');
}

/** What the console says, as text: the firmware clears a screen that nobody has. */
export function consoleOf({ consoleLog }: Guest): string {
  const text = readIfExists(consoleLog) ?? '';
  return stripVTControlCharacters(text).replaceAll(/[\r\u001b]/g, '');
}

/** The last lines; of a panic those around its first, since a long trace follows. */
function tellingPart(console: string): string {
  const lines = console.trimEnd().split('\n');
  const panic = lines.findIndex((line) => line.includes('Kernel panic'));
  const shown = 15;
  return (panic < 0 ? lines.slice(-shown) : lines.slice(Math.max(0, panic - 5), panic + shown - 5)).join(
    '\n',
  );
}

/** The failure of a wait with what the machine said last, and a hint where it has none. */
export function explain(error: unknown, hint: string, guest: Guest): unknown {
  if (!(error instanceof Failure) || error.reason === 'interrupted') return error;
  const tail = tellingPart(consoleOf(guest));
  return new Failure(error.reason, error.message, {
    detail: tail ? `its console ends with:\n${tail}` : 'its console is empty',
    hint: error.hint ?? hint,
    data: error.data,
    cause: error,
  });
}
