import { describe, expect, test } from 'vitest';
import { isoImage } from '../../../src/image/iso9660.ts';

const sector = 2048;

/** Reads the root of an image by what the standard says, not by what the writer knows. */
function read(image: Buffer): { label: string; files: Map<string, string> } {
  const volume = image.subarray(16 * sector, 17 * sector);
  expect(volume.toString('latin1', 0, 7)).toBe('\x01CD001\x01');
  expect(volume.readUInt32LE(80)).toBe(image.length / sector);
  expect(volume.readUInt32BE(84)).toBe(image.length / sector);
  expect(image.toString('latin1', 17 * sector, 17 * sector + 7)).toBe('\xffCD001\x01');
  const [at, length] = [volume.readUInt32LE(156 + 2), volume.readUInt32LE(156 + 10)];
  const folder = image.subarray(at * sector, at * sector + length);
  const files = new Map<string, string>();
  for (let offset = 0; offset < folder.length;) {
    const size = folder[offset] ?? 0;
    if (size === 0) break;
    expect(size % 2).toBe(0);
    const name = folder.toString('latin1', offset + 33, offset + 33 + (folder[offset + 32] ?? 0));
    const [start, bytes] = [folder.readUInt32LE(offset + 2), folder.readUInt32LE(offset + 10)];
    expect([folder.readUInt32BE(offset + 6), folder.readUInt32BE(offset + 14)]).toEqual([start, bytes]);
    const isFolder = ((folder[offset + 25] ?? 0) & 2) !== 0;
    if (!isFolder) files.set(name, image.toString('utf8', start * sector, start * sector + bytes));
    offset += size;
  }
  return { label: volume.toString('latin1', 40, 72).trimEnd(), files };
}

describe('isoImage', () => {
  test('holds the files whole, under capital names in their order', () => {
    const long = 'ü'.repeat(3000);
    const image = isoImage(
      'cidata',
      new Map([
        ['user-data', long],
        ['meta-data', 'a: b\n'],
        ['empty', ''],
      ]),
    );
    const { label, files } = read(image);
    expect(label).toBe('cidata');
    expect([...files]).toEqual([
      ['EMPTY.;1', ''],
      ['META-DATA.;1', 'a: b\n'],
      ['USER-DATA.;1', long],
    ]);
  });

  test('is made of whole sectors, and the same for the same files', () => {
    const files = new Map([['meta-data', 'x'.repeat(2049)]]);
    expect(isoImage('cidata', files).length).toBe((21 + 2) * sector);
    expect(isoImage('cidata', files).equals(isoImage('cidata', files))).toBe(true);
  });

  test.each([['../x'], ['A'], ['a.b'], ['']])('%j is not a name', (name) => {
    expect(() => isoImage('cidata', new Map([[name, '']]))).toThrow(RangeError);
  });
});
