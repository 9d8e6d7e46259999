import { mkdir } from 'node:fs/promises';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { ScriptHouse } from './support.ts';

let house: ScriptHouse;
beforeEach(async () => {
  house = await ScriptHouse.open();
  await mkdir(house.at('kernel/cached'), { recursive: true });
});
afterEach(() => house.close());

/** What is called where somebody calls the compiler. */
async function called(...words: readonly string[]): Promise<readonly string[]> {
  const anything = { calls: [words, ['gcc', ...words]].map((argv) => ({ argv })) };
  await house.play({ gcc: anything, ccache: anything }, []);
  const compiler = { 'compiler=/usr/bin/gcc': 'compiler=gcc' };
  expect(await house.run('kernel/cached/gcc', words, {}, compiler)).toMatchObject({
    exitCode: 0,
    stderr: '',
  });
  return house.calls();
}

describe("the compiler's cache", () => {
  it('is asked for what is compiled', async () => {
    expect(await called('-O2', '-c', '-o', 'a b.o', 'a b.c')).toEqual(['ccache gcc -O2 -c -o a b.o a b.c']);
  });

  it.each([
    ['an option', '-Werror -m64 -c -x c /dev/null -o tmp'],
    ['an instruction', '-Wa,--fatal-warnings -c -x assembler-with-cpp -o tmp -'],
    ['a version', '--version'],
    ['a program of objects', '-o conf conf.o'],
  ])('is not asked for %s', async (_, words) => {
    expect(await called(...words.split(' '))).toEqual([`gcc ${words}`]);
  });
});
