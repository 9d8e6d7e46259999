import { Failure } from '../core/errors.ts';
import { step } from '../core/events.ts';
import type { Channel } from '../guest/channel.ts';
import { provisionLog, provisionState } from '../guest/cloud-init.ts';
import type { Context } from '../host/context.ts';
import { poll, type Deadline } from '../host/deadline.ts';
import { probesOf } from '../lima/probes.ts';
import type { Instance } from './instance.ts';
import { provisioningFailed } from './provisioning.ts';
import { consoleOf, explain, refuseStandstill, type Guest } from './readiness.ts';

/** A state in the first line, what belongs to it in the others. */
const stateScript = `
over=no
if [ -e /run/cloud-init/result.json ]; then over=yes; fi
state=$(cat ${provisionState} 2>/dev/null)
case $state in
  failed*) printf '%s\\n' "$state"; tail -n 30 ${provisionLog} ;;
  ?*) printf '%s\\n' "$state" ;;
  *) if [ "$over" = yes ]; then echo over; cat /run/cloud-init/result.json; else echo waiting; fi ;;
esac`;

/** One question; a guest that is emulated takes seconds to let somebody in. */
const patience = 30_000;
const probePatience = 120_000;
/** Milliseconds between two questions. */
const longest = 2_000;

/**
 * Waits until a machine that boots from a cloud image is reached by ssh, and its provisioning is through. Ends by success,
 * by the deadline, by the words of a script that failed, or by the machine's death, whichever comes first.
 */
export async function waitForCloud(
  ctx: Context,
  instance: Instance,
  channel: Channel,
  guest: Guest,
  deadline: Deadline,
): Promise<void> {
  const ask = asker(ctx, channel, guest);
  const wait = <T>(what: string, look: () => Promise<T | undefined>): Promise<T> =>
    poll(what, look, { deadline, signal: ctx.signal, longest });
  await step(ctx.emit, 'boot', 'Booting', async () => {
    try {
      await wait('booting', ask);
    } catch (error) {
      throw explain(error, bootHint, guest);
    }
  });
  await step(ctx.emit, 'provision', 'Waiting for its provisioning', async (progress) => {
    try {
      await wait('its provisioning', async () => judge(instance, await ask(), progress));
    } catch (error) {
      const isTold = error instanceof Failure && error.reason === 'guest' && error.detail !== undefined;
      throw isTold ? error : explain(error, provisionHint(instance), guest);
    }
    for (const probe of probesOf(instance.spec)) await check(ctx, instance, channel, probe);
  });
}

const bootHint =
  'the image must boot by the firmware that the template names, and be one for cloud-init; the console tells how far it came';

function provisionHint({ name }: Instance): string {
  return `--timeout gives it longer; zfsdev start ${name} goes on with a machine that is there`;
}

/** What the guest says of its provisioning, line by line; undefined as long as it can't be asked. */
function asker(ctx: Context, channel: Channel, guest: Guest): () => Promise<string[] | undefined> {
  let reached = false;
  return async () => {
    // Asked before the guest is: a machine that ends right after its last word must still be heard.
    const alive = await guest.isAlive();
    try {
      const { exitCode, stdout } = await channel.exec(['sh', '-c', stateScript], {
        deadline: patience,
        signal: ctx.signal,
      });
      reached = true;
      if (exitCode === 0) return stdout.split('\n');
    } catch (error) {
      // Nobody answers yet, or somebody who isn't set up yet.
      if (!(error instanceof Failure) || error.reason === 'interrupted') throw error;
    }
    await refuseStandstill(guest);
    const early = { data: { beforeContact: !reached } };
    if (/Kernel panic/.test(consoleOf(guest)))
      throw new Failure('guest', `the kernel of "${guest.name}" panicked`, early);
    if (!alive) throw new Failure('guest', `the machine "${guest.name}" ended before it was ready`, early);
    return undefined;
  };
}

/** True once it is through. @throws Failure `guest` if it failed */
function judge(
  instance: Instance,
  answer: readonly string[] | undefined,
  progress: (text: string) => void,
): true | undefined {
  const [state = '', ...words] = answer ?? [];
  const [verb, script = '', code] = state.split(' ');
  if (verb === 'done') return true;
  if (verb === 'failed') {
    const summary = `${script} ended with exit code ${code}`;
    throw provisioningFailed(instance, [...words, summary].join('\n'));
  }
  if (verb === 'over') {
    throw new Failure('guest', `cloud-init in "${instance.name}" ended without the provisioning`, {
      detail: words.join('\n'),
      hint: 'look whether the image has cloud-init with its modules write_files and scripts_per_boot',
    });
  }
  if (verb === 'running') progress(`guest: ${script}`);
  return undefined;
}

async function check(
  ctx: Context,
  { name }: Instance,
  channel: Channel,
  { description, script, hint }: ReturnType<typeof probesOf>[number],
): Promise<void> {
  // Written for a user who needs sudo, and asked as root here, who may not have it.
  const asRoot = `sudo() { "$@"; }\n${script}`;
  const { exitCode, stdout, stderr } = await channel.exec(['sh', '-c', asRoot], {
    deadline: probePatience,
    signal: ctx.signal,
  });
  if (exitCode === 0) return;
  throw new Failure('guest', `in "${name}" it is not so that ${description}`, {
    detail: (stdout + stderr).trim(),
    hint: hint.trim(),
  });
}
