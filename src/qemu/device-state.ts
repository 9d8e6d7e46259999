import { Failure } from '../core/errors.ts';
import { quote } from '../core/quote.ts';
import { poll, type Deadline } from '../host/deadline.ts';
import type { Qmp } from './qmp.ts';

interface Patience {
  readonly deadline: Deadline;
  readonly signal: AbortSignal;
}

/**
 * Writes the state of a machine's processors and devices to a file, and leaves out its memory, which must lie in a shared
 * file of its own; the machine stands still afterwards. That is how QEMU's manual has machines made from a template, and it works
 * alike on every version: nothing is copied, neither now nor when a fork starts.
 * @throws Failure `process` in QEMU's words, `deadline`, `interrupted`
 */
export async function saveDevices(qmp: Qmp, file: string, patience: Patience): Promise<void> {
  await qmp.execute('stop');
  await leaveMemoryOut(qmp);
  await qmp.execute('migrate', { uri: uriOf(qmp.version, file, 'write') });
  await poll('saving the devices', () => saved(qmp), { ...patience, longest: 20 });
}

/**
 * Has a machine that was started to restore read such a file; it stands still afterwards.
 * @throws Failure `process` if QEMU ended, which it does when it can't make sense of what it reads.
 */
export async function loadDevices(qmp: Qmp, file: string, patience: Patience): Promise<void> {
  await leaveMemoryOut(qmp);
  await qmp.execute('migrate-incoming', { uri: uriOf(qmp.version, file, 'read') });
  const restored = async (): Promise<true | undefined> =>
    (await qmp.execute('query-status')).status === 'inmigrate' ? undefined : true;
  await poll('the restore', restored, { ...patience, longest: 10 });
  // Whatever is saved of this machine from now on is to hold its memory.
  await leaveMemoryOut(qmp, false);
}

async function leaveMemoryOut(qmp: Qmp, state = true): Promise<void> {
  await qmp.execute('migrate-set-capabilities', {
    capabilities: [{ capability: 'x-ignore-shared', state }],
  });
}

/**
 * QEMU opens files itself since 8.2. Before, only a program of its own can do it; the path is quoted in the one place
 * that quotes. `file:` takes what follows a comma for an option.
 */
function uriOf(version: string, file: string, direction: 'read' | 'write'): string {
  const [major = 0, minor = 0] = version.split('.').map(Number);
  const opensFiles = major > 8 || (major === 8 && minor >= 2);
  if (opensFiles && !file.includes(',')) return `file:${file}`;
  return `exec:cat ${direction === 'write' ? '>' : '<'} ${quote(file)}`;
}

async function saved(qmp: Qmp): Promise<true | undefined> {
  const { status, 'error-desc': words } = await qmp.execute('query-migrate');
  if (status === 'completed') return true;
  if (status !== 'failed' && status !== 'cancelled') return undefined;
  throw new Failure('process', `QEMU could not save the machine${words ? `: ${words}` : ''}`, {
    hint: 'zfsdev list and df tell whether there is room; up --cold goes without',
  });
}
