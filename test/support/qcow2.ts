import { open, readFile } from 'node:fs/promises';

/** What a made-up qcow2 says of itself. */
export interface Header {
  readonly backing?: string;
  readonly corrupt?: boolean;
  /** More bits of what a reader must understand. */
  readonly features?: bigint;
  /** Where its first table lies and how many entries it has, where not as QEMU has it. */
  readonly firstTable?: { readonly offset?: number; readonly entries?: number; readonly first?: bigint };
  readonly snapshots?: { readonly offset: number; readonly count: number };
}

const cluster = 65_536;

/** The start of a qcow2 of 64 KiB clusters, as QEMU writes it: a header, and an empty first table behind it. */
export function header(size: number, options: Header = {}): Buffer {
  const bytes = Buffer.alloc(2 * cluster);
  bytes.writeUInt32BE(0x514649fb, 0);
  bytes.writeUInt32BE(3, 4);
  bytes.writeUInt32BE(16, 20);
  bytes.writeBigUInt64BE(BigInt(size), 24);
  const {
    offset = cluster,
    entries = Math.ceil(size / cluster / (cluster / 8)),
    first = 0n,
  } = options.firstTable ?? {};
  bytes.writeUInt32BE(entries, 36);
  bytes.writeBigUInt64BE(BigInt(offset), 40);
  bytes.writeBigUInt64BE(first, cluster);
  bytes.writeUInt32BE(options.snapshots?.count ?? 0, 60);
  bytes.writeBigUInt64BE(BigInt(options.snapshots?.offset ?? 0), 64);
  bytes.writeBigUInt64BE((options.corrupt ? 2n : 0n) | (options.features ?? 0n), 72);
  bytes.writeUInt32BE(104, 100);
  if (options.backing !== undefined) {
    bytes.writeBigUInt64BE(512n, 8);
    bytes.writeUInt32BE(bytes.write(options.backing, 512), 16);
  }
  return bytes;
}

/** How often each cluster of a small qcow2 is used, as its first block of 16-bit counts has it. */
export async function readReferences(path: string): Promise<Uint16Array> {
  const bytes = await readFile(path);
  const at = blockOf(bytes);
  return Uint16Array.from({ length: 2 ** bytes.readUInt32BE(20) / 2 }, (_, i) =>
    bytes.readUInt16BE(at + i * 2),
  );
}

/** Has each cluster be used at least as often as before: none that was given back since is free. They are leaked by that. */
export async function leaveReferences(path: string, before: Uint16Array): Promise<void> {
  const now = await readReferences(path);
  const block = Buffer.alloc(now.length * 2);
  now.forEach((count, i) => block.writeUInt16BE(Math.max(count, before[i] ?? 0), i * 2));
  const file = await open(path, 'r+');
  try {
    await file.write(block, 0, block.length, blockOf(await readFile(path)));
  } finally {
    await file.close();
  }
}

function blockOf(bytes: Buffer): number {
  return Number(bytes.readBigUInt64BE(Number(bytes.readBigUInt64BE(48))));
}
