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

/** What a request may not have another of when its id comes again, in words. */
const asked = {
  name: (job: ImportJob) => `of the name "${job.name}"`,
  target: (job: ImportJob) => `for a ${job.target}`,
  source: (job: ImportJob) => `of ${job.source === 'upload' ? 'what a client sent' : job.source}`,
  size: (job: ImportJob) => (job.size === undefined ? 'without a size' : `of the size ${job.size}`),
  blockSize: (job: ImportJob) => `with blocks of ${job.blockSize} bytes`,
  sha256: (job: ImportJob) => (job.sha256 === '' ? 'without a checksum' : `with the checksum ${job.sha256}`),
} as const;

/** How an import that was begun is another one than what is asked for, in words; undefined if it is the same. */
export function differenceOf(begun: ImportJob, wanted: ImportJob): string | undefined {
  const keys = (Object.keys(asked) as (keyof typeof asked)[]).filter((key) => begun[key] !== wanted[key]);
  const [is, was] = [wanted, begun].map((job) => keys.map((key) => asked[key](job)).join(', '));
  return keys.length === 0 ? undefined : `${was}; this one is ${is}`;
}
