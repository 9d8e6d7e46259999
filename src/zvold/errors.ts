/** The gRPC codes that zvold answers with; a client can tell from them what to do. */
export type ZvolCode =
  | 'INVALID_ARGUMENT'
  | 'NOT_FOUND'
  | 'ALREADY_EXISTS'
  | 'FAILED_PRECONDITION'
  | 'RESOURCE_EXHAUSTED'
  | 'UNAVAILABLE'
  | 'DEADLINE_EXCEEDED'
  | 'PERMISSION_DENIED'
  | 'ABORTED'
  | 'CANCELLED'
  | 'DATA_LOSS'
  | 'INTERNAL';

/** What went wrong, to which thing; the message is meant for people. */
export class ZvolError extends Error {
  override readonly name = 'ZvolError';
  readonly code: ZvolCode;

  constructor(code: ZvolCode, message: string, cause?: unknown) {
    super(message, cause === undefined ? {} : { cause });
    this.code = code;
  }
}

/** The words of anything that was thrown. */
export function wordsOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
