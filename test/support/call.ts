import { spawnSync } from 'node:child_process';

/** Runs a program of the host to its end; gives its output. @throws Error with all it said, if it doesn't exit with 0 */
export function call(program: string, ...args: readonly string[]): string {
  return callIn(process.cwd(), program, ...args);
}

/** As `call`, in a folder: qemu-io's own commands know no quotes, so that paths in them have to be relative. */
export function callIn(folder: string, program: string, ...args: readonly string[]): string {
  const { status, stdout, stderr, error } = spawnSync(program, args, { encoding: 'utf8', cwd: folder });
  if (error) throw error;
  if (status !== 0) throw new Error(`${program} ${args.join(' ')}: ${stderr}${stdout}`);
  return stdout;
}
