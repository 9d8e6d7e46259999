import { basename, extname } from 'node:path';
import { Failure } from '../core/errors.ts';
import { parseName, type InstanceName } from '../core/names.ts';
import { checkDiskFlag, findConflicts } from './conflicts.ts';
import { resizePool, sizingOf, type Sizing } from './grow.ts';
import { resolveImage } from './image.ts';
import { loadTemplate } from './load.ts';
import type { TemplateSource } from './source.ts';
import type { PoolSpec, Spec } from './spec.ts';
import { resolveStorage } from './storage-resolve.ts';
import {
  inOneLine,
  readAccelerator,
  readCpus,
  readDisk,
  readDriver,
  readMemory,
  readPoolFileSize,
  readSuite,
  type Reader,
} from './values.ts';

/** What the user typed beside the template, as typed; each wins over the template. */
export interface ResolveFlags {
  readonly cpus?: number | undefined;
  readonly memory?: string | undefined;
  readonly disk?: string | undefined;
  /** Size of each of the pool's files. */
  readonly poolSize?: string | undefined;
  readonly name?: string | undefined;
  readonly driver?: string | undefined;
  readonly accelerator?: string | undefined;
  readonly suite?: string | undefined;
}

/**
 * Finds, reads and resolves a template: one of ours by name, a user's own by path.
 * @throws Failure `template` or `usage`; see `loadTemplate` and `resolveTemplate`.
 */
export async function resolveSpec(
  nameOrPath: string,
  flags: ResolveFlags = {},
  folder?: string,
): Promise<Spec> {
  return resolveTemplate(await loadTemplate(nameOrPath, folder), flags);
}

/**
 * Makes a spec of a template and flags.
 * @throws Failure `usage` for what is wrong with the flags, `template` for what is wrong with the file, each with all
 *   problems at once.
 */
export function resolveTemplate(source: TemplateSource, flags: ResolveFlags = {}): Spec {
  const { values } = source;
  const read = readFlags(flags);
  if (read.poolSize !== undefined && values.pool === undefined) {
    throw new Failure('usage', `--pool-size ${flags.poolSize}: the template ${source.template} has no pool`, {
      hint: 'leave --pool-size out, or take a template with a pool: zfs-test, zfs-small, combined',
    });
  }
  const grown = read.poolSize === undefined ? sizingOf(values) : resizePool(sizingOf(values), read.poolSize);
  const sizing = { ...grown, disk: read.disk ?? grown.disk };
  if (read.disk !== undefined) checkDiskFlag(sizing, grown.disk);
  const problems = findConflicts(values, sizing, { diskByFlag: read.disk !== undefined });
  if (problems.length > 0) throw source.fail(problems);
  const driver = read.driver ?? values.driver;
  return {
    template: source.template,
    name: nameOf(source, read.name),
    description: values.description,
    ...(driver === undefined ? {} : { driver }),
    accelerator: read.accelerator ?? 'auto',
    cpus: read.cpus ?? values.cpus,
    memory: read.memory ?? values.memory,
    disk: sizing.disk,
    image: resolveImage(values, read.suite, source.file),
    ...(sizing.pool === undefined ? {} : { pool: poolSpec(sizing.pool) }),
    ...(values.buildTools ? { buildTools: true } : {}),
    ...(values.storage === undefined ? {} : { storage: resolveStorage(values.storage, source.file) }),
    worstCase: sizing.worstCase,
  };
}

function poolSpec({ files, ...pool }: NonNullable<Sizing['pool']>): PoolSpec {
  const { name, layout, fileSize, ashift, autotrim, properties } = pool;
  return { name, layout, fileCount: files, fileSize, ashift, autotrim, properties };
}

function readFlags(flags: ResolveFlags) {
  const problems: { option: string; error: Failure }[] = [];
  const take = <T>(option: string, input: unknown, read: Reader<T>): T | undefined => {
    if (input === undefined) return undefined;
    try {
      return read(input);
    } catch (error) {
      if (!(error instanceof Failure)) throw error;
      problems.push({ option, error });
      return undefined;
    }
  };
  const read = {
    cpus: take('cpus', flags.cpus, readCpus),
    memory: take('memory', flags.memory, readMemory),
    disk: take('disk', flags.disk, readDisk),
    poolSize: take('pool-size', flags.poolSize, readPoolFileSize),
    name: take('name', flags.name, (input) => parseName(String(input))),
    driver: take('driver', flags.driver, readDriver),
    accelerator: take('accel', flags.accelerator, readAccelerator),
    suite: take('suite', flags.suite, readSuite),
  };
  const [first, ...more] = problems;
  if (first === undefined) return read;
  if (more.length === 0) {
    const { option, error } = first;
    const hint = error.hint === undefined ? {} : { hint: error.hint };
    throw new Failure('usage', `--${option}: ${error.message}`, { ...hint, cause: error });
  }
  throw new Failure('usage', `${problems.length} options are wrong`, {
    detail: problems.map(({ option, error }) => `--${option}: ${inOneLine(error)}`).join('\n'),
  });
}

function nameOf(source: TemplateSource, flag: InstanceName | undefined): InstanceName {
  if (flag !== undefined) return flag;
  if (source.values.name !== undefined) return source.values.name;
  if (source.builtIn) return parseName(source.template);
  try {
    return parseName(basename(source.template, extname(source.template)));
  } catch (error) {
    if (!(error instanceof Failure)) throw error;
    throw new Failure(
      'usage',
      `the instance can't be named after the file ${source.template}: ${error.message}`,
      {
        hint: `choose one with --name, or with the key "name" in the file; ${error.hint}`,
        cause: error,
      },
    );
  }
}
