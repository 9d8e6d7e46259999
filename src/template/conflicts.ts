import { exactBytes, formatBytes, parseBytes, type Bytes } from '../core/bytes.ts';
import { Failure } from '../core/errors.ts';
import { filesOf, wholeGiB, type Sizing } from './grow.ts';
import { sizeProperties } from './properties.ts';
import { imageConflicts } from './image.ts';
import type { KeyProblem, Template } from './schema.ts';
import { worstCaseTotal, type WorstCasePart } from './spec.ts';

/**
 * Refuses a `--disk` that the parts don't fit; `natural` is the disk's size without that option.
 * @throws Failure `usage` with the size it would need.
 */
export function checkDiskFlag({ disk, worstCase }: Sizing, natural: Bytes): void {
  const total = worstCaseTotal(worstCase);
  if (total <= disk) return;
  const least = exactBytes(wholeGiB(total));
  const without = natural >= total ? `leave --disk out, and it is ${exactBytes(natural)}; ` : '';
  throw new Failure('usage', `--disk ${exactBytes(disk)} is too small: ${sumText(worstCase)}`, {
    hint: `${without}the least that fits is --disk ${least}`,
    data: { disk, needed: total, parts: worstCase },
  });
}

/** What contradicts each other in a template whose keys are right one by one. */
export function findConflicts(
  values: Template,
  sizing: Sizing,
  options: { readonly diskByFlag: boolean },
): KeyProblem[] {
  return [
    ...(options.diskByFlag ? [] : diskConflicts(sizing)),
    ...partConflicts(values, sizing),
    ...imageConflicts(values),
    ...(sizing.pool === undefined ? [] : poolConflicts(values, sizing.pool)),
  ];
}

function diskConflicts({ disk, worstCase }: Sizing): KeyProblem[] {
  const total = worstCaseTotal(worstCase);
  if (total <= disk) return [];
  const least = `the least that fits is ${exactBytes(wholeGiB(total))}`;
  return [value(['disk'], `${exactBytes(disk)} is too small: ${sumText(worstCase)}; ${least}`)];
}

function partConflicts(values: Template, { pool, worstCase }: Sizing): KeyProblem[] {
  const problems: KeyProblem[] = [];
  const sizes = new Map(worstCase.map(({ part, size }) => [part, size]));
  if (values.buildTools && !sizes.has('tools')) {
    problems.push(key(['buildTools'], 'takes space on the disk: add the part "tools" to worstCase'));
  }
  const part = sizes.get('pool');
  if (pool === undefined) {
    if (part !== undefined) problems.push(key(['worstCase', 'pool'], 'there is no pool in this template'));
    return problems;
  }
  const files = filesOf(pool);
  if (part !== undefined && part < files) {
    const text = `${pool.files} files of ${exactBytes(pool.fileSize)} take ${exactBytes(files)}`;
    problems.push(value(['worstCase', 'pool'], `${formatBytes(part)} is too small for the pool: ${text}`));
  }
  return problems;
}

function poolConflicts({ image }: Template, pool: NonNullable<Template['pool']>): KeyProblem[] {
  const problems: KeyProblem[] = [];
  if (image.flavour === 'base') {
    problems.push(key(['pool'], `needs an image with ZFS, but image.flavour is ${image.flavour}`));
  }
  for (const name of sizeProperties) {
    const size = pool.properties[name];
    if (size === undefined || size === 'none' || parseBytes(size) <= pool.fileSize) continue;
    const limit = `the pool, whose files have ${exactBytes(pool.fileSize)}`;
    problems.push(value(['pool', 'properties', name], `${size} is more than ${limit}`));
  }
  return problems;
}

function key(path: readonly string[], message: string): KeyProblem {
  return { path, at: 'key', message };
}

function value(path: readonly string[], message: string): KeyProblem {
  return { path, at: 'value', message };
}

/** The parts and their sum, in one line. */
function sumText(worstCase: readonly WorstCasePart[]): string {
  const parts = worstCase.map(({ part, size }) => `${part} ${formatBytes(size)}`).join(' + ');
  return `the worst-case parts sum up to ${formatBytes(worstCaseTotal(worstCase))} (${parts})`;
}
