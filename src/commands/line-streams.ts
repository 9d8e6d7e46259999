import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { PassThrough, Readable } from 'node:stream';
import type { Streams } from '../guest/channel.ts';
import type { Session } from './session.ts';

/** Output of one of many, each line with its number in front. */
export function prefixed(index: number): LineStreams {
  return lineStreams((stream, line) => process[stream].write(`[${index + 1}] ${line}\n`));
}

/** Output as JSON lines, which tell machine and stream. */
export function asJson(session: Session, index: number): LineStreams {
  return lineStreams((stream, text) =>
    session.write(`${JSON.stringify({ type: 'output', machine: index + 1, stream, text })}\n`),
  );
}

/** Streams for a command whose output is taken line by line; `end` gives the last ones, whole or not. */
export interface LineStreams extends Streams {
  end(): Promise<void>;
}

function lineStreams(take: (stream: 'stdout' | 'stderr', line: string) => void): LineStreams {
  const ends: Promise<unknown>[] = [];
  const lines = (name: 'stdout' | 'stderr'): PassThrough => {
    const stream = new PassThrough();
    const reader = createInterface({ input: stream, crlfDelay: Infinity });
    reader.on('line', (line) => take(name, line));
    ends.push(once(reader, 'close'));
    return stream;
  };
  const [stdout, stderr] = [lines('stdout'), lines('stderr')];
  const end = async (): Promise<void> => {
    stdout.end();
    stderr.end();
    await Promise.all(ends);
  };
  return { stdin: Readable.from([]), stdout, stderr, end };
}
