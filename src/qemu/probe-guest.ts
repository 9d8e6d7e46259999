import type { Architecture } from './machine.ts';

/** A guest of a few hundred bytes that proves that a CPU really runs under an accelerator. */
export interface ProbeGuest {
  /** What goes into the file that QEMU is given. */
  readonly image: Uint8Array;
  /** QEMU's arguments beside board, accelerator and CPU. */
  readonly arguments: (file: string) => readonly string[];
  /** QEMU's exit code when the guest got through, and only then. */
  readonly success: number;
}

/** Assembled from probe-guest.S, which tells what it does. */
const x86Code = [
  'fafc6631c08ed88ec0bf0010b90030f3aac70600100320c70600200330c706003083002e660f0116',
  '80000f20e00c200f22e066b8001000000f22d866b9800000c00f3280cc010f300f20c0660d010000',
  '800f22c066ea5c000f000800b900001000ffc975fcb010e6f4f4ebfd0f1f40000000000000000000',
  '00000000009a20000f0070000f00',
].join('');

const romSize = 64 * 1024;
/** Where an x86 CPU begins: 16 bytes below the end. */
const resetVector = romSize - 16;
const jumpToStart = [0xea, 0x00, 0x00, 0x00, 0xf0];

/** The code of the x86_64 probe guest, without the ROM around it. */
export function x86ProbeCode(): Uint8Array {
  return Buffer.from(x86Code, 'hex');
}

function x86Rom(): Uint8Array {
  const hlt = 0xf4;
  const rom = new Uint8Array(romSize).fill(hlt);
  rom.set(x86ProbeCode());
  rom.set(jumpToStart, resetVector);
  return rom;
}

/**
 * Calls PSCI SYSTEM_OFF, which ends QEMU:
 *
 *     movz w0, #0x0008
 *     movk w0, #0x8400, lsl #16
 *     hvc  #0
 *     b    .
 */
const arm64Code = ['00018052', '0080b072', '020000d4', '00000014'].join('');

export function probeGuest(architecture: Architecture): ProbeGuest {
  if (architecture === 'x86_64') {
    return {
      image: x86Rom(),
      arguments: (file) => ['-bios', file, '-device', 'isa-debug-exit,iobase=0xf4,iosize=1'],
      success: 2 * 0x10 + 1,
    };
  }
  return { image: Buffer.from(arm64Code, 'hex'), arguments: (file) => ['-kernel', file], success: 0 };
}
