const sector = 2048;
/** Places of what comes before the files, in sectors: descriptors follow the system's area of 16. */
const place = { volume: 16, terminator: 17, littlePaths: 18, bigPaths: 19, root: 20, files: 21 } as const;
/** One root and nothing below it. */
const pathTableLength = 10;

/**
 * Writes a file system of ISO 9660 (ECMA-119) with some files in its root: what a guest needs to read settings from, and no
 * program of the host has to make. Names are written in capitals, as the standard has them; Linux shows them in small
 * letters. Equal files give equal bytes.
 * @param label of the volume, at most 32 letters and digits
 */
export function isoImage(label: string, files: ReadonlyMap<string, string | Uint8Array>): Buffer {
  const sorted = [...files]
    .map(([name, content]) => ({ name: isoName(name), content: Buffer.from(content) }))
    .sort((a, b) => (a.name < b.name ? -1 : 1));
  let next: number = place.files;
  const placed = sorted.map((file) => {
    const at = next;
    next += Math.ceil(file.content.length / sector);
    return { ...file, at };
  });
  const image = Buffer.alloc(next * sector);
  const root = [
    record('\0', { at: place.root, length: sector, isFolder: true }),
    record('\x01', { at: place.root, length: sector, isFolder: true }),
    ...placed.map(({ name, at, content }) => record(name, { at, length: content.length, isFolder: false })),
  ];
  const folder = Buffer.concat(root);
  if (folder.length > sector) throw new RangeError('too many files for one sector of names');
  folder.copy(image, place.root * sector);
  volume(label, next).copy(image, place.volume * sector);
  Buffer.from('\xffCD001\x01', 'latin1').copy(image, place.terminator * sector);
  pathTable('LE').copy(image, place.littlePaths * sector);
  pathTable('BE').copy(image, place.bigPaths * sector);
  for (const { at, content } of placed) content.copy(image, at * sector);
  return image;
}

/** A name always has a dot and a version in it. */
function isoName(name: string): string {
  if (!/^[a-z0-9_-]{1,26}$/.test(name)) throw new RangeError(`not a name for this file system: ${name}`);
  return `${name.toUpperCase()}.;1`;
}

function record(name: string, to: { at: number; length: number; isFolder: boolean }): Buffer {
  const bytes = Buffer.alloc(33 + name.length + ((name.length + 1) % 2));
  bytes.writeUInt8(bytes.length, 0);
  both32(bytes, to.at, 2);
  both32(bytes, to.length, 10);
  // 18 to 24: no time is told.
  bytes.writeUInt8(to.isFolder ? 2 : 0, 25);
  both16(bytes, 1, 28);
  bytes.writeUInt8(name.length, 32);
  bytes.write(name, 33, 'latin1');
  return bytes;
}

function volume(label: string, sectors: number): Buffer {
  if (!/^\w{1,32}$/.test(label)) throw new RangeError(`not a label for a volume: ${label}`);
  const bytes = Buffer.alloc(sector);
  bytes.write('\x01CD001\x01', 0, 'latin1');
  // Texts that aren't told are spaces, and so is the rest of those that are.
  for (const [at, length] of [
    [8, 64],
    [190, 623],
  ] as const)
    bytes.fill(' ', at, at + length);
  bytes.write(label, 40, 'latin1');
  both32(bytes, sectors, 80);
  both16(bytes, 1, 120);
  both16(bytes, 1, 124);
  both16(bytes, sector, 128);
  both32(bytes, pathTableLength, 132);
  bytes.writeUInt32LE(place.littlePaths, 140);
  bytes.writeUInt32BE(place.bigPaths, 148);
  record('\0', { at: place.root, length: sector, isFolder: true }).copy(bytes, 156);
  // Four times that aren't told: 16 digits, and the distance from Greenwich.
  for (let at = 813; at < 881; at += 17) bytes.fill('0', at, at + 16);
  bytes.writeUInt8(1, 881);
  return bytes;
}

function pathTable(order: 'LE' | 'BE'): Buffer {
  const bytes = Buffer.alloc(pathTableLength);
  bytes.writeUInt8(1, 0);
  if (order === 'LE') bytes.writeUInt32LE(place.root, 2);
  else bytes.writeUInt32BE(place.root, 2);
  if (order === 'LE') bytes.writeUInt16LE(1, 6);
  else bytes.writeUInt16BE(1, 6);
  return bytes;
}

/** Numbers are written twice, for either kind of machine. */
function both32(bytes: Buffer, value: number, at: number): void {
  bytes.writeUInt32LE(value, at);
  bytes.writeUInt32BE(value, at + 4);
}

function both16(bytes: Buffer, value: number, at: number): void {
  bytes.writeUInt16LE(value, at);
  bytes.writeUInt16BE(value, at + 2);
}
