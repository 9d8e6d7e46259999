import { createHash } from 'node:crypto';
import { Failure } from '../core/errors.ts';
import { withFile } from '../host/files.ts';

export type DigestAlgorithm = 'sha256' | 'sha512';

/** 4 MiB: large enough that the calls don't count, small enough that an interrupt is heeded at once. */
const chunkSize = 4 * 1024 * 1024;

/**
 * Digests of a file in hex, in the order of the algorithms; it is read once.
 * @throws Failure `files`, `interrupted`
 */
export async function digestsOf(
  path: string,
  algorithms: readonly DigestAlgorithm[],
  options: { readonly signal: AbortSignal; readonly progress: (done: number, total: number) => void },
): Promise<string[]> {
  return withFile(path, async (file, { size }) => {
    const hashes = algorithms.map((algorithm) => createHash(algorithm));
    const buffer = Buffer.alloc(chunkSize);
    for (let at = 0; ;) {
      if (options.signal.aborted) throw new Failure('interrupted', `interrupted while reading ${path}`);
      const { bytesRead } = await file.read(buffer, 0, chunkSize, at);
      if (bytesRead === 0) break;
      for (const hash of hashes) hash.update(buffer.subarray(0, bytesRead));
      at += bytesRead;
      options.progress(at, size);
    }
    return hashes.map((hash) => hash.digest('hex'));
  });
}
