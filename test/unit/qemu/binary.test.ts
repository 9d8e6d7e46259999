import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { Failure } from '../../../src/core/errors.ts';
import { hostArchitecture, isSupported, parseVersion } from '../../../src/qemu/binary.ts';

const recorded = (name: string): Promise<string> =>
  readFile(join(import.meta.dirname, '../../recorded/qemu-7.2', name), 'utf8');

test.each(['qemu-system-x86_64.version.txt', 'qemu-img.version.txt'])('reads %s', async (name) => {
  expect(parseVersion(await recorded(name))).toEqual({ major: 7, minor: 2, micro: 22, text: '7.2.22' });
});

test.each([
  ['', undefined],
  ['bash: qemu-img: command not found', undefined],
  ['QEMU emulator version 10.0', '10.0.0'],
])('reads the version in %j', (output, text) => {
  expect(parseVersion(output)?.text).toBe(text);
});

test.each([
  [{ major: 6, minor: 1 }, false],
  [{ major: 6, minor: 2 }, true],
  [{ major: 5, minor: 9 }, false],
  [{ major: 10, minor: 0 }, true],
])('%j is supported: %s', (version, supported) => {
  expect(isSupported(version)).toBe(supported);
});

test('machines have the architecture of their host', () => {
  expect(hostArchitecture('x64')).toBe('x86_64');
  expect(hostArchitecture('arm64')).toBe('aarch64');
  expect(() => hostArchitecture('riscv64')).toThrow(Failure);
});
