import { chmod, copyFile } from 'node:fs/promises';
import { join } from 'node:path';
import { Failure, messageOf } from '../core/errors.ts';
import type { Context } from '../host/context.ts';
import { makeWholeFile } from '../host/whole-file.ts';
import { publicMode } from './archive.ts';
import type { Builder } from './builder.ts';

/** So many logs of one build that failed are kept beside each other. */
const mostLogs = 1000;

/** A build that failed, and whose place goes all the same. */
export interface Failed {
  readonly id: string;
  readonly error: unknown;
  readonly log: string;
  /** The folder that gets the log. */
  readonly folder: string;
}

/**
 * Takes the place of a build that failed away; the log stays, in the folder that would have got the archive. Gives the failure as
 * it is to be told then: with nothing in it that is gone.
 */
export async function takeAway(ctx: Context, builder: Builder, failed: Failed): Promise<unknown> {
  const { error, log } = failed;
  let kept: string;
  try {
    kept = await keepLog(ctx, failed);
    await builder.remove();
  } catch (trouble) {
    const hint = `the build is still there, and could not be deleted: ${messageOf(trouble)}`;
    return retold(error, ({ hint: before }) => ({ hint: [hint, ...(before ? [before] : [])].join('\n') }));
  }
  return retold(error, ({ hint = '', detail, data }) => ({
    hint: [
      ...hint
        .split('\n')
        .filter((line) => line !== '' && ![...builder.afterwards, builder.anew].includes(line))
        .map((line) => line.replace(/[,;]? (and|then) go on with --resume.*$| --resume$/, '')),
      `the build is deleted, and its log kept: ${kept}`,
      'the same command without --resume begins anew',
    ].join('\n'),
    ...(detail === undefined ? {} : { detail: detail.replaceAll(log, kept) }),
    data: data['log'] === undefined ? data : { ...data, log: kept },
  }));
}

function retold(
  error: unknown,
  tell: (failure: Failure) => ConstructorParameters<typeof Failure>[2],
): unknown {
  if (!(error instanceof Failure)) return error;
  const { reason, message, hint, detail, data } = error;
  const before = {
    ...(hint === undefined ? {} : { hint }),
    ...(detail === undefined ? {} : { detail }),
    data,
  };
  return new Failure(reason, message, { ...before, ...tell(error), cause: error });
}

/** No other log is replaced, not even that of the same build. */
async function keepLog(ctx: Context, { id, log, folder }: Failed): Promise<string> {
  for (let number = 1; ; number += 1) {
    const path = join(folder, `kernel-build-${id.slice(0, 6)}${number === 1 ? '' : `-${number}`}.log`);
    try {
      const fill = async (file: string): Promise<void> => {
        await copyFile(log, file);
        await chmod(file, publicMode());
      };
      return await makeWholeFile(ctx, path, { fill });
    } catch (error) {
      if (!(error instanceof Failure) || error.reason !== 'already-exists' || number === mostLogs)
        throw error;
    }
  }
}
