import { constants } from 'node:fs';
import { access, copyFile, mkdir, rename, rm, stat } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { Failure, hasCode, messageOf } from '../core/errors.ts';
import type { Context } from '../host/context.ts';
import { sha256Of } from '../image/kernel-archive.ts';
import { parseKernelManifest } from '../image/kernel-store.ts';
import { flush } from '../image/publish.ts';
import type { Builder } from './builder.ts';
import type { Facts } from './pipeline.ts';

/** What an archive has at its top. */
export const members = ['manifest.json', 'SHA256SUMS', 'System.map', 'config', 'initrd', 'vmlinuz'] as const;

export interface Delivered {
  readonly path: string;
  readonly sha256: string;
  readonly log: string;
}

/**
 * Brings the archive out of the builder into a folder: written beside, compared with what the builder says it is, looked
 * through, and only then given its name. An older archive of that name is replaced by the whole new one. The log comes with it.
 * @throws Failure `files` if it can't be written or is not what was packed, `interrupted`
 */
export async function deliver(
  ctx: Context,
  builder: Builder,
  facts: Facts,
  output: string,
  log: string,
): Promise<Delivered> {
  const name = facts.get('archive') ?? '';
  const expected = facts.get('sha256') ?? '';
  if (basename(name) !== name || !name.endsWith('.tar.zst'))
    throw new Failure('files', `the builder names no archive: "${name}"`);
  const path = join(output, name);
  const part = join(output, `.${name}.part`);
  const delivered = { path, sha256: expected, log: path.replace(/\.tar\.zst$/, '.log') };
  try {
    await builder.fetch(name, part);
    await verify(ctx, part, expected);
    await flush(part);
    await copyFile(log, delivered.log);
    await rename(part, path);
    await flush(dirname(path));
  } catch (error) {
    await rm(part, { force: true }).catch(() => undefined);
    if (error instanceof Failure) throw error;
    const full = hasCode(error, 'ENOSPC', 'EDQUOT');
    throw new Failure(full ? 'no-space' : 'files', `${path} can't be written: ${messageOf(error)}`, {
      hint: [
        full
          ? 'make room there, or name another folder with --output; then go on with --resume'
          : 'name another folder with --output, and go on with --resume',
        ...builder.afterwards,
      ].join('\n'),
      cause: error,
    });
  }
  return delivered;
}

/**
 * Makes the folder that the archive will go to, and looks whether anything can be written there: before a build rather than
 * after it. @throws Failure `files`, `usage`
 */
export async function checkOutput(output: string): Promise<void> {
  try {
    await mkdir(output, { recursive: true });
    await access(output, constants.W_OK | constants.X_OK);
    if (!(await stat(output)).isDirectory()) throw new Error('it is not a folder');
  } catch (error) {
    throw new Failure('files', `the archive can't go to ${output}: ${messageOf(error)}`, {
      hint: 'name another folder with --output',
      cause: error,
    });
  }
}

/** @throws Failure `files` unless the archive is what was packed, and has in it what it must */
async function verify(ctx: Context, path: string, expected: string): Promise<void> {
  const found = await sha256Of(path, ctx.signal);
  if (found !== expected) {
    throw new Failure(
      'files',
      `the archive that arrived is not the one that was packed: ${found} instead of ${expected}`,
      {
        hint: 'go on with --resume: it is copied again',
      },
    );
  }
  const { stdout } = await ctx.run(['tar', '--zstd', '-tf', path], {
    effect: 'read',
    deadline: 600_000,
    signal: ctx.signal,
  });
  const manifest = await ctx.run(['tar', '--zstd', '-xOf', path, 'manifest.json'], {
    effect: 'read',
    deadline: 600_000,
    signal: ctx.signal,
  });
  parseKernelManifest(manifest.stdout);
  const present = new Set(stdout.split('\n'));
  const missing = members.filter((member) => !present.has(member));
  if (missing.length > 0)
    throw new Failure('files', `the archive lacks ${missing.join(', ')}`, { hint: 'build it again' });
}
