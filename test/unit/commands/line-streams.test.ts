import { afterEach, expect, test, vi } from 'vitest';
import { asJson, prefixed } from '../../../src/commands/line-streams.ts';
import type { Session } from '../../../src/commands/session.ts';

afterEach(() => vi.restoreAllMocks());

test('each line of one of many has its number, the last one too though nothing ends it', async () => {
  const written: string[] = [];
  vi.spyOn(process.stdout, 'write').mockImplementation((text) => written.push(String(text)) > 0);
  const streams = prefixed(2);
  streams.stdout.write('one\ntw');
  streams.stdout.write('o\nthree');
  await streams.end();
  expect(written).toEqual(['[3] one\n', '[3] two\n', '[3] three\n']);
});

test('as JSON, each line tells machine and stream', async () => {
  const written: unknown[] = [];
  const session = { write: (text: string) => written.push(JSON.parse(text)) } as unknown as Session;
  const streams = asJson(session, 0);
  streams.stderr.write('a "quote"\r\n');
  streams.stdout.write('b');
  await streams.end();
  expect(written).toEqual([
    { type: 'output', machine: 1, stream: 'stderr', text: 'a "quote"' },
    { type: 'output', machine: 1, stream: 'stdout', text: 'b' },
  ]);
});
