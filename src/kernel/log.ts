import { appendFileSync } from 'node:fs';
import { Failure, hasCode, messageOf } from '../core/errors.ts';

/** Appends a line to the log of a build. @throws Failure `no-space`, `files` */
export function appendLog(path: string, line: string): void {
  try {
    appendFileSync(path, `${line}\n`);
  } catch (error) {
    const full = hasCode(error, 'ENOSPC', 'EDQUOT');
    throw new Failure(
      full ? 'no-space' : 'files',
      `the log of the build can't be written: ${messageOf(error)}`,
      {
        hint: full ? 'zfsdev usage tells what takes the room there' : `look at ${path}`,
        cause: error,
      },
    );
  }
}
