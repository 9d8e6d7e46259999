import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { commandLineFigures } from './command-line.ts';
import { machineFigures } from './machine.ts';
import { reclaimFigures } from './reclaim.ts';
import { snapshotFigures } from './snapshot.ts';
import { usageFigures } from './usage.ts';
import { zvoldFigures } from './zvold.ts';
import { describeMachine, renderTable, type Figure } from './report.ts';

// Usage: npm run bench [-- --quick]   writes bench/results.json and prints a Markdown table.
// --quick leaves out what needs a virtual machine. ZFSDEV_HOME is never touched; ZFSDEV_BENCH_HOME keeps built images.
const quick = process.argv.includes('--quick');
const kept = process.env['ZFSDEV_BENCH_HOME'];
const home = kept ?? (await mkdtemp(join(tmpdir(), 'zfsdev-bench-')));
try {
  const figures: Figure[] = [
    ...(await commandLineFigures()),
    ...(quick
      ? []
      : [
          ...(await usageFigures()),
          ...(await machineFigures(home)),
          ...(await reclaimFigures(home)),
          ...(await snapshotFigures(home)),
          ...(await zvoldFigures(home)),
        ]),
  ];
  const document = { machine: describeMachine(), date: new Date().toISOString().slice(0, 10), figures };
  await mkdir('bench', { recursive: true });
  await writeFile('bench/results.json', `${JSON.stringify(document, null, 2)}\n`);
  console.log(renderTable(document));
} finally {
  if (kept === undefined) await rm(home, { recursive: true, force: true });
}
