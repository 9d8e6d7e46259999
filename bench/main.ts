import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { commandLineFigures } from './command-line.ts';
import { cloudKernelFigures, kernelFigures, openZfsKernelFigures } from './kernel.ts';
import { machineFigures } from './machine.ts';
import { reclaimFigures } from './reclaim.ts';
import {
  describeMachine,
  mergePart,
  readResults,
  renderTables,
  type Figure,
  type Results,
} from './report.ts';
import { snapshotFigures } from './snapshot.ts';
import { usageFigures } from './usage.ts';
import { zvoldFigures } from './zvold.ts';

// Usage: npm run bench [-- --quick | PART...]   writes bench/results.json and prints it as Markdown tables.
// Figures of parts that were not measured stay as they are. --quick is command-line alone, which needs no virtual machine;
// without words all but the kernels' are measured. ZFSDEV_HOME is never touched; ZFSDEV_BENCH_HOME keeps built images.

const measures = {
  'command-line': commandLineFigures,
  usage: usageFigures,
  machine: machineFigures,
  reclaim: reclaimFigures,
  snapshot: snapshotFigures,
  zvold: zvoldFigures,
  kernel: kernelFigures,
  'kernel-openzfs': openZfsKernelFigures,
  'kernel-cloud': cloudKernelFigures,
} as const satisfies Readonly<Record<string, (home: string) => Promise<Figure[]>>>;
type Part = keyof typeof measures;

const all = Object.keys(measures) as Part[];
/** They compile kernels, for half an hour to two. */
const onlyIfNamed: readonly Part[] = ['kernel', 'kernel-openzfs', 'kernel-cloud'];

function chosen(words: readonly string[]): readonly Part[] {
  if (words.length === 0) return all.filter((part) => !onlyIfNamed.includes(part));
  if (words.length === 1 && words[0] === '--quick') return ['command-line'];
  const parts = all.filter((part) => words.includes(part));
  const unknown = words.filter((word) => !parts.some((part) => part === word));
  if (unknown.length > 0)
    throw new Error(`there is no part ${unknown.join(', ')}: there are ${all.join(', ')}; or --quick alone`);
  return parts;
}

/** One part after another, each written as soon as it is there: hours of measuring are not lost to what fails later. */
async function measure(parts: readonly Part[], home: string, path: string): Promise<Results> {
  let results = await readResults(path);
  for (const part of parts) {
    console.error(`measuring ${part}`);
    try {
      const figures = await measures[part](home);
      const date = new Date().toISOString().slice(0, 10);
      results = mergePart(results, { part, machine: describeMachine(), date, figures });
    } catch (error) {
      console.error(`${part} could not be measured, its old figures stay:`, error);
      process.exitCode = 1;
      continue;
    }
    await writeFile(path, `${JSON.stringify(results, null, 2)}\n`);
  }
  return results;
}

const parts = chosen(process.argv.slice(2));
const kept = process.env['ZFSDEV_BENCH_HOME'];
const home = kept ?? (await mkdtemp(join(tmpdir(), 'zfsdev-bench-')));
try {
  await mkdir('bench', { recursive: true });
  console.log(renderTables(await measure(parts, home, join('bench', 'results.json'))));
} finally {
  if (kept === undefined) await rm(home, { recursive: true, force: true });
}
