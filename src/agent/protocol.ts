/**
 * What the host and the guest's agent say to each other, shared by both programs. One TCP connection carries one
 * request: a handshake (handshake.ts), then frames of `u32 length, u8 type, payload`, numbers big-endian.
 *
 * Input to a command is bounded by credit rather than by leaving the socket unread: the agent must always read, or it
 * would not hear a signal, or the end of the connection, behind input that the command doesn't take.
 */

/** The port in the guest; below 1024, so that no ordinary user of the guest can take its place. */
export const agentPort = 1023;

export const FrameType = {
  /** Host: a Request, as JSON; the first frame. */
  request: 1,
  stdin: 2,
  stdinEnd: 3,
  /** Host: the name of a signal for the command's process group. */
  signal: 4,
  stdout: 16,
  stderr: 17,
  /** Agent: an Exit, as JSON; the last frame of a command. */
  exit: 18,
  /** Agent: the result of any other request, as JSON. */
  answer: 19,
  /** Agent: a Refusal, as JSON: the request was not, or not fully, carried out. */
  refusal: 20,
  /** Agent: u32, so many more bytes of input may be sent. */
  credit: 21,
} as const;

export type FrameType = (typeof FrameType)[keyof typeof FrameType];

export interface Frame {
  readonly type: FrameType;
  readonly payload: Buffer;
}

/** The most bytes in one frame of stdin, stdout or stderr. */
export const maxData = 64 * 1024;
/** Linux takes no argv and environment beyond 2 MiB; JSON may double that. */
const maxRequest = 4 * 1024 * 1024;
const maxAnswer = 256 * 1024;
/** Bytes of input on their way to a command; enough to keep an emulated network busy. */
export const inputWindow = 1024 * 1024;

/** What one side accepts: the longest payload of each type. */
export type FrameLimits = ReadonlyMap<number, number>;

export const requestLimits: FrameLimits = new Map<number, number>([
  [FrameType.request, maxRequest],
  [FrameType.stdin, maxData],
  [FrameType.stdinEnd, 0],
  [FrameType.signal, 16],
]);

export const answerLimits: FrameLimits = new Map<number, number>([
  [FrameType.stdout, maxData],
  [FrameType.stderr, maxData],
  [FrameType.exit, 1024],
  [FrameType.answer, maxAnswer],
  [FrameType.refusal, maxAnswer],
  [FrameType.credit, 4],
]);

export interface ExecRequest {
  readonly kind: 'exec';
  readonly argv: readonly string[];
  /** Added to the login-like environment. */
  readonly env?: Readonly<Record<string, string>>;
  /** Root's home if left out. */
  readonly cwd?: string;
}

/** All that makes a machine forked from saved memory its own. */
export interface Adoption {
  readonly hostname: string;
  /** 32 hexadecimal digits. */
  readonly machineId: string;
  /** 8 hexadecimal digits: the bytes of /etc/hostid in their order. */
  readonly hostid: string;
  readonly mac: string;
  readonly sshHostKey: string;
  readonly sshHostPublicKey: string;
  /** 64 hexadecimal digits: the secret of this channel from the next connection on. */
  readonly agentKey: string;
  /** Milliseconds since 1970 when this was sent. */
  readonly time: number;
  /** Random bytes as hexadecimal digits, so that two forks don't draw the same numbers. */
  readonly entropy: string;
}

/** What a machine must learn that stood still, or that was taken back to an earlier moment. */
export type Awakening = Pick<Adoption, 'time' | 'entropy'>;

/** Asks for a way to a socket of the guest; after the answer the connection carries its bytes and no frames. */
export interface ConnectRequest {
  readonly kind: 'connect';
  /** Of a Unix socket. */
  readonly path: string;
}

export type Request =
  | ExecRequest
  | ConnectRequest
  | ({ readonly kind: 'adopt' } & Adoption)
  | ({ readonly kind: 'awaken' } & Awakening)
  | { readonly kind: 'facts' };

export interface Exit {
  /** 128 + n after signal n, counted by the guest's own numbers. */
  readonly code: number;
  readonly signal?: string;
}

export interface Refusal {
  readonly message: string;
  /** The step that failed, when a request has several. */
  readonly step?: string;
}

/** What the agent knows of its machine without starting a process. Sizes in bytes. */
export interface GuestFacts {
  readonly hostname: string;
  readonly machineId: string;
  /** Milliseconds since 1970 by the guest's clock. */
  readonly time: number;
  /** Seconds since the kernel started. */
  readonly uptime: number;
  /** Over 1, 5 and 15 minutes. */
  readonly load: readonly number[];
  readonly memory: { readonly total: number; readonly available: number };
  readonly root: { readonly total: number; readonly used: number; readonly free: number };
  readonly pools: readonly { readonly name: string; readonly health: string }[];
}

/** The other side broke the rules above: the connection is of no further use. */
export class ProtocolError extends Error {
  override readonly name = 'ProtocolError';
}

export function encodeHeader(type: FrameType, length: number): Buffer {
  const header = Buffer.allocUnsafe(5);
  header.writeUInt32BE(length, 0);
  header.writeUInt8(type, 4);
  return header;
}

/** Turns received bytes into frames, holding at most one unfinished frame. */
export class FrameDecoder {
  readonly #limits: FrameLimits;
  #chunks: Buffer[] = [];
  #size = 0;

  constructor(limits: FrameLimits) {
    this.#limits = limits;
  }

  /**
   * Takes the next bytes and gives the frames they complete.
   * @throws ProtocolError at a type or length that isn't allowed, as soon as its header is there.
   */
  push(chunk: Buffer): Frame[] {
    this.#chunks.push(chunk);
    this.#size += chunk.length;
    const frames: Frame[] = [];
    while (this.#size >= 5) {
      const header = this.#join(5);
      const length = header.readUInt32BE(0);
      const type = header.readUInt8(4);
      const limit = this.#limits.get(type);
      if (limit === undefined) throw new ProtocolError(`a frame of type ${type} has no place here`);
      if (length > limit) throw new ProtocolError(`a frame of ${length} bytes is too long for type ${type}`);
      if (this.#size < 5 + length) break;
      const all = this.#join(5 + length);
      frames.push({ type: type as FrameType, payload: all.subarray(5, 5 + length) });
      this.#chunks = all.length > 5 + length ? [all.subarray(5 + length)] : [];
      this.#size -= 5 + length;
    }
    return frames;
  }

  /** Makes the first chunk hold at least so many bytes; long frames are joined once, when they are complete. */
  #join(length: number): Buffer {
    const [first] = this.#chunks;
    if (first && first.length >= length) return first;
    const all = Buffer.concat(this.#chunks);
    this.#chunks = [all];
    return all;
  }
}
