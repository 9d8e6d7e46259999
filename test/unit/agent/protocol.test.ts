import { describe, expect, it } from 'vitest';
import {
  answerLimits,
  encodeHeader,
  FrameDecoder,
  FrameType,
  maxData,
  ProtocolError,
  requestLimits,
} from '../../../src/agent/protocol.ts';
import type { Frame } from '../../../src/agent/protocol.ts';

function frame(type: FrameType, payload: Uint8Array): Buffer {
  return Buffer.concat([encodeHeader(type, payload.length), payload]);
}

function inPieces(bytes: Buffer, size: number): Frame[] {
  const decoder = new FrameDecoder(answerLimits);
  const frames: Frame[] = [];
  for (let at = 0; at < bytes.length; at += size) frames.push(...decoder.push(bytes.subarray(at, at + size)));
  return frames;
}

describe('frames', () => {
  const long = Buffer.alloc(maxData, 'x');
  const stream = Buffer.concat([
    frame(FrameType.stdout, Buffer.from('one')),
    frame(FrameType.stderr, Buffer.alloc(0)),
    frame(FrameType.stdout, long),
    frame(FrameType.exit, Buffer.from('{"code":0}')),
  ]);

  it.each([1, 2, 5, 7, 1000, 65536, 1_000_000])(
    'come out whole however they arrive: %i bytes at a time',
    (size) => {
      const frames = inPieces(stream, size);
      expect(frames.map(({ type }) => type)).toEqual([
        FrameType.stdout,
        FrameType.stderr,
        FrameType.stdout,
        FrameType.exit,
      ]);
      expect(frames[0]?.payload.toString()).toBe('one');
      expect(frames[2]?.payload.equals(long)).toBe(true);
      expect(frames[3]?.payload.toString()).toBe('{"code":0}');
    },
  );

  it('are refused by their header alone when they are too long', () => {
    const decoder = new FrameDecoder(answerLimits);
    expect(() => decoder.push(encodeHeader(FrameType.stdout, maxData + 1))).toThrow(ProtocolError);
  });

  it.each([0, 9, 255])('are refused when their type %i is unknown', (type) => {
    const decoder = new FrameDecoder(requestLimits);
    expect(() => decoder.push(Buffer.from([0, 0, 0, 0, type]))).toThrow(ProtocolError);
  });

  it("are refused in the other side's direction", () => {
    expect(() => new FrameDecoder(requestLimits).push(encodeHeader(FrameType.stdout, 1))).toThrow(
      ProtocolError,
    );
    expect(() => new FrameDecoder(answerLimits).push(encodeHeader(FrameType.stdin, 1))).toThrow(
      ProtocolError,
    );
  });

  it('of garbage are refused', () => {
    expect(() => new FrameDecoder(requestLimits).push(Buffer.from('GET / HTTP/1.1\r\n'))).toThrow(
      ProtocolError,
    );
  });
});
