import { ZvolError } from './errors.ts';
import type { ImportJob, ImportTarget } from './jobs.ts';
import { idFor, type Keeper } from './keeper.ts';
import { alignSize, checkBlockSize, checkName, defaultBlockSize } from './names.ts';

/** What is imported as what. */
export interface ImportRequest {
  readonly name: string;
  readonly target: ImportTarget;
  readonly size?: number | undefined;
  readonly blockSize?: number | undefined;
  readonly sha256: string;
  readonly id: string;
}

/** True for a source that is fetched. */
export const isAddress = (source: string): boolean => /^[a-z][a-z0-9+.-]*:\/\//i.test(source);

/** The import that a request asks for. @throws ZvolError `INVALID_ARGUMENT` */
export function jobOf({ pool }: Keeper, request: ImportRequest, source: string): ImportJob {
  const { name, target, sha256 } = request;
  checkName(`the ${target}`, name, `${pool}/`);
  const blockSize = request.blockSize ?? defaultBlockSize;
  checkBlockSize(blockSize);
  if (sha256 !== '' && !/^[0-9a-f]{64}$/i.test(sha256))
    throw new ZvolError('INVALID_ARGUMENT', `"${sha256}" is no SHA-256`);
  const size = request.size === undefined ? undefined : alignSize(request.size, blockSize);
  const begun = { state: 'pending', done: 0, total: 0, error: '', created: Date.now() } as const;
  return {
    id: idFor(request.id),
    name,
    target,
    source,
    size,
    blockSize,
    sha256: sha256.toLowerCase(),
    ...begun,
  };
}
