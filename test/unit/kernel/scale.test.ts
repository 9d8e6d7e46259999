import { describe, expect, it } from 'vitest';
import { bytes, GiB, MiB } from '../../../src/core/bytes.ts';
import { Failure } from '../../../src/core/errors.ts';
import { scaledTo } from '../../../src/kernel/scale.ts';

const asked = { cpus: 4, memory: bytes(4 * GiB) };

describe('a build machine', () => {
  it('has what the template asks for where the host has it, and nothing is said', () => {
    expect(scaledTo({ cpus: 16, freeMemory: 32 * GiB }, asked)).toEqual({ ...asked, notices: [] });
  });

  it('is scaled down to the processors and the memory of the host, which is said', () => {
    const { cpus, memory, notices } = scaledTo({ cpus: 2, freeMemory: 2.5 * GiB + 1000 }, asked);
    expect({ cpus, memory }).toEqual({ cpus: 2, memory: 2 * GiB });
    expect(notices).toEqual([
      'this host has 2 processors: the machine gets those instead of 4',
      'this host has not the memory free: the machine gets 2 GiB instead of 4 GiB',
    ]);
  });

  it('has the one processor that there is', () => {
    const { cpus, notices } = scaledTo({ cpus: 1, freeMemory: 32 * GiB }, asked);
    expect(cpus).toBe(1);
    expect(notices).toEqual(['this host has 1 processor: the machine gets that instead of 4']);
  });

  it.each([0, GiB, 1.5 * GiB - MiB])(
    'is refused on a host with %i bytes free, with the other builder',
    (freeMemory) => {
      const refused = (): unknown => scaledTo({ cpus: 2, freeMemory }, asked);
      expect(refused).toThrow(Failure);
      expect(refused).toThrow(/too little for a build machine/);
    },
  );
});
