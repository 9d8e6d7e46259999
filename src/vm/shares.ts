import { accessSync, constants, statSync, type Stats } from 'node:fs';
import { Failure, messageOf } from '../core/errors.ts';
import type { InstanceName } from '../core/names.ts';
import type { Context } from '../host/context.ts';
import { checkSocketPath } from '../host/paths.ts';
import type { ShareDevice } from '../template/storage.ts';
import { findVirtiofsd } from './virtiofsd.ts';

/** Looks whether a folder can be shared. @throws Failure `not-found`, `files`, `unsupported`, `dependency` */
export async function checkShare(ctx: Context, instance: InstanceName, share: ShareDevice): Promise<void> {
  const { name, path, readonly, protocol } = share;
  const what = `the share "${name}"`;
  let found: Stats | undefined;
  try {
    found = statSync(path, { throwIfNoEntry: false });
  } catch (error) {
    throw new Failure('files', `${what}: ${path} can't be looked at: ${messageOf(error)}`, { cause: error });
  }
  if (!found)
    throw new Failure('not-found', `${what}: there is no folder ${path}`, { hint: `mkdir -p ${path}` });
  if (!found.isDirectory()) throw new Failure('files', `${what}: ${path} is not a folder`);
  const verb = readonly ? 'read' : 'written to';
  try {
    accessSync(path, constants.R_OK | constants.X_OK | (readonly ? 0 : constants.W_OK));
  } catch (error) {
    throw new Failure('files', `${what}: ${path} can't be ${verb}: ${messageOf(error)}`, {
      hint: readonly ? `chmod u+rx ${path}` : 'make it writable, or say readonly: true in the template',
      cause: error,
    });
  }
  if (protocol === '9p') return;
  checkSocketPath(ctx.paths.instance(instance).share(name).socket);
  const server = await findVirtiofsd(ctx);
  if (!readonly || server.canReadOnly) return;
  throw new Failure('unsupported', `${what}: ${server.program} can't keep a guest from writing`, {
    hint: 'protocol: 9p in the template can; or a virtiofsd of version 1.11 and later',
  });
}
