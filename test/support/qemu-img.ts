import { spawnSync } from 'node:child_process';
import { chmod, mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { call } from './call.ts';

/**
 * Puts a qemu-img before the real one, which it is in the end, unless the script of sh that it runs first exits; gives the PATH with
 * it. The script has the words of the call as `$1` and so on, and the real program as `$real`.
 */
export async function qemuImgWith(folder: string, script: string): Promise<string> {
  const bin = join(folder, 'bin');
  await mkdir(bin);
  const real = spawnSync('sh', ['-c', 'command -v qemu-img'], { encoding: 'utf8' }).stdout.trim();
  const program = join(bin, 'qemu-img');
  await writeFile(program, `#!/bin/sh\nreal='${real}'\n${script}\nexec "$real" "$@"\n`);
  await chmod(program, 0o755);
  return `${bin}:${process.env['PATH'] ?? ''}`;
}

/** Makes a qcow2 of a raw file, by these options of qemu-img. */
export function toQcow2(raw: string, qcow2: string, ...options: readonly string[]): void {
  call('qemu-img', 'convert', '-f', 'raw', '-O', 'qcow2', ...options, raw, qcow2);
}
