// For scripts: import { connect } from 'zfsdev/zvol'. docs/volumes.md has an example, which a test runs.
import { setMaxListeners } from 'node:events';
import { parseName } from '../core/names.ts';
import { openContext } from '../host/open-context.ts';
import type { ConnectOptions, ZvoldClient } from './api.ts';
import { connectZvold } from './connect.ts';

export type * from './api.ts';
export type * from './messages.ts';

/**
 * Opens a way to the volume manager in a running machine; `close` it in the end. All sizes are bytes.
 * @throws Error as every call of the client does: its `message` is for people, its `reason` for programs (`not-found`,
 *   `already-exists`, `wrong-state`, `no-space`, `usage`, `guest` ...), its `hint` tells what to do.
 */
export async function connect(instance: string, options: ConnectOptions = {}): Promise<ZvoldClient> {
  const { home, signal = new AbortController().signal } = options;
  // Scripts may have any number of calls under way.
  setMaxListeners(0, signal);
  const env = home === undefined ? process.env : { ...process.env, ZFSDEV_HOME: home };
  return connectZvold(openContext({ env, signal, emit: () => undefined }), parseName(instance));
}
