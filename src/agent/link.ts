import type { Socket } from 'node:net';
import { encodeHeader, FrameDecoder, ProtocolError } from './protocol.ts';
import type { Frame, FrameLimits, FrameType } from './protocol.ts';

const nothing = Buffer.alloc(0);

/** One authenticated connection, as frames; used by both sides. */
export class Link {
  readonly socket: Socket;
  readonly #decoder: FrameDecoder;
  #leftover: Buffer;
  #take: ((chunk: Buffer) => void) | undefined;

  /** `leftover` came after the handshake, in the same packet. */
  constructor(socket: Socket, limits: FrameLimits, leftover: Buffer) {
    this.socket = socket;
    this.#decoder = new FrameDecoder(limits);
    this.#leftover = leftover;
  }

  /** Starts to read. A frame that isn't allowed ends the connection, and so does what `handle` throws. */
  onFrame(handle: (frame: Frame) => void): void {
    const take = (chunk: Buffer): void => {
      try {
        for (const frame of this.#decoder.push(chunk)) {
          if (this.socket.destroyed) return;
          handle(frame);
        }
      } catch (error) {
        this.socket.destroy(error instanceof Error ? error : new ProtocolError(String(error)));
      }
    };
    const leftover = this.#leftover;
    this.#leftover = nothing;
    if (leftover.length > 0) take(leftover);
    this.#take = take;
    this.socket.on('data', take);
    this.socket.resume();
  }

  /** Reads no more frames: what comes from now on is the caller's. */
  release(): Socket {
    if (this.#take) this.socket.off('data', this.#take);
    this.socket.pause();
    return this.socket;
  }

  /** Sends a frame; false asks the caller to wait for the socket's `drain`. */
  send(type: FrameType, payload: Buffer = nothing): boolean {
    if (this.socket.destroyed || !this.socket.writable) return true;
    this.socket.cork();
    let room = this.socket.write(encodeHeader(type, payload.length));
    if (payload.length > 0) room = this.socket.write(payload);
    this.socket.uncork();
    return room;
  }

  sendJson(type: FrameType, value: unknown): boolean {
    return this.send(type, Buffer.from(JSON.stringify(value)));
  }
}
