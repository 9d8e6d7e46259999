import { expect, it } from 'vitest';
import { Hub, type Change, type Told } from '../../../src/zvold/hub.ts';

const gone = (id: string): Change => ({ kind: 'volume-deleted', id });
const wordOf = (told: Told): string => (told.kind === 'volume-deleted' ? told.id : told.kind);

it('tells all that is there, and then every change in its order, to one who keeps up', async () => {
  const hub = new Hub();
  const stop = new AbortController();
  const seen: string[] = [];
  expect(hub.isWatched).toBe(false);
  for await (const told of hub.watch(() => Promise.resolve([gone('there')]), stop.signal)) {
    seen.push(wordOf(told));
    if (told.kind === 'synced') for (let at = 0; at < 900; at += 1) hub.tell(gone(String(at)));
    if (wordOf(told) === '899') stop.abort();
  }
  expect(seen).toEqual(['there', 'synced', ...Array.from({ length: 900 }, (_, at) => String(at))]);
  expect(hub.isWatched).toBe(false);
});

it('has one who is too slow begin anew with what is there then', async () => {
  const hub = new Hub();
  const stop = new AbortController();
  let present = 'before';
  const kinds: string[] = [];
  for await (const told of hub.watch(() => Promise.resolve([gone(present)]), stop.signal)) {
    const word = wordOf(told);
    if (!/^\d+$/.test(word)) kinds.push(word);
    if (word === 'synced' && present === 'before') {
      present = 'after';
      for (let at = 0; at < 5000; at += 1) hub.tell(gone(String(at)));
    } else if (word === 'synced') stop.abort();
  }
  expect(kinds).toEqual(['before', 'synced', 'resync', 'after', 'synced']);
});

it('tells what changes while one is told what is there', async () => {
  const hub = new Hub();
  const stop = new AbortController();
  const seen: string[] = [];
  const survey = (): Promise<Change[]> => {
    hub.tell(gone('meanwhile'));
    return Promise.resolve([gone('there')]);
  };
  for await (const told of hub.watch(survey, stop.signal)) {
    seen.push(wordOf(told));
    if (wordOf(told) === 'meanwhile') stop.abort();
  }
  expect(seen).toEqual(['there', 'synced', 'meanwhile']);
});
