// Runs inside a machine: kills zvold's operations behind each of their changes, on a real pool of its own, and looks what the
// next daemon makes of it. A line for each step; exit code 0 if all is well.
import { existsSync, mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { randomBytes } from 'node:crypto';
import { runCommand, type Command } from '../../../src/zvold/command.ts';
import { deleteVolume } from '../../../src/zvold/deletion.ts';
import { Exports } from '../../../src/zvold/export.ts';
import { Imports } from '../../../src/zvold/imports.ts';
import { ownFolder } from '../../../src/zvold/inventory.ts';
import { hasEnded } from '../../../src/zvold/jobs.ts';
import { inventory, newKeeper, type Keeper } from '../../../src/zvold/keeper.ts';
import { thisMachine } from '../../../src/zvold/machine.ts';
import type { Inventory } from '../../../src/zvold/model.ts';
import {
  createSnapshot,
  deleteSnapshot,
  holdSnapshot,
  releaseSnapshot,
  rollback,
} from '../../../src/zvold/snapshots.ts';
import { cloneTemplate, createTemplate, deleteTemplate } from '../../../src/zvold/templates.ts';
import { createVolume, renameVolume, resizeVolume } from '../../../src/zvold/volumes.ts';
import { MiB, must, run, runParts, scratchPool } from './scratch-pool.ts';

const pool = 'killed';
const folder = '/root/killed';
const source = `${folder}/source.raw`;
const changes = /^(create|clone|snapshot|set|inherit|rename|destroy|rollback|hold|release|program)$/;

/** A daemon's insides, as they are when it starts. */
interface Daemon {
  readonly keeper: Keeper;
  readonly imports: Imports;
  readonly exports: Exports;
}

function daemon(command: Command): Daemon {
  const keeper = newKeeper(pool, command, thisMachine);
  const policy = { folders: [folder], allowLocalAddresses: false, largest: 2 ** 30 };
  const place = { command, folder: `${folder}/state` };
  const imports = new Imports(keeper, { ...place, policy, atOnce: 2 });
  return { keeper, imports, exports: new Exports(keeper, place) };
}

/** A command that lets so many changes through, and none of what comes behind; tells when that is. */
function mortal(most: number): { command: Command; died: Promise<'died'> } {
  let seen = 0;
  let dead: () => void = () => undefined;
  const died = new Promise<'died'>((resolve) => (dead = () => resolve('died')));
  const command: Command = (argv, options) => {
    if (seen === most) {
      dead();
      return new Promise(() => undefined);
    }
    if (changes.test(argv[1] ?? '')) seen += 1;
    return runCommand(argv, options);
  };
  return { command, died };
}

/** An operation; `name` is another in each step, so that the pool needs no cleaning. */
interface Operation {
  readonly what: string;
  readonly prepare?: (daemon: Daemon, name: string) => Promise<unknown>;
  readonly run: (daemon: Daemon, name: string) => Promise<unknown>;
  /** Whether it is done, from what is in the pool. */
  readonly isDone: (found: Inventory, name: string) => boolean;
}

const never = new AbortController().signal;
const volume = ({ keeper }: Daemon, name: string): Promise<unknown> =>
  createVolume(keeper, { name, size: MiB, thick: false, id: name });

async function snapshotted(daemon: Daemon, name: string): Promise<void> {
  await volume(daemon, name);
  await createSnapshot(daemon.keeper, name, 'one', `${name}-one`);
}

async function held(daemon: Daemon, name: string): Promise<void> {
  await snapshotted(daemon, name);
  await holdSnapshot(daemon.keeper, name, 'one', 'me');
}

/** How many hold a volume's snapshot; undefined if it is gone. */
function holdsOf({ volumes }: Inventory, name: string): number | undefined {
  return volumes.find(({ id }) => id === name)?.snapshots[0]?.holds;
}

async function template(daemon: Daemon, name: string): Promise<void> {
  await snapshotted(daemon, name);
  const wanted = { name: `${name}-t`, volume: name, snapshot: 'one', id: `${name}-t` };
  await createTemplate(daemon.keeper, wanted);
}

/** An export to its end. */
async function exported({ exports }: Daemon, name: string, format: 'raw' | 'qcow2'): Promise<void> {
  const { parts, close } = await exports.open({ volume: name, snapshot: '', format }, never);
  for await (const { data } of parts) must(data.length > 0 || format === 'raw', 'its bytes come');
  await close();
}

/** An import to its end. */
async function imported(
  { keeper, imports }: Daemon,
  name: string,
  target: 'volume' | 'template',
): Promise<void> {
  const stop = new AbortController();
  const watch = keeper.hub.watch(() => Promise.resolve([]), stop.signal);
  await watch.next();
  const { id } = await imports.start({ name, target, sha256: '', id: name }, source);
  if (!hasEnded(imports.get(id)))
    for await (const told of watch) if (told.kind === 'import' && hasEnded(told.job)) break;
  stop.abort();
  must(imports.get(id).state === 'completed', `the import of ${name} completes: ${imports.get(id).error}`);
}

const operations: readonly Operation[] = [
  {
    what: 'create',
    run: volume,
    isDone: ({ volumes }, name) => volumes.some(({ id }) => id === name),
  },
  {
    what: 'resize',
    prepare: volume,
    run: ({ keeper }, name) => resizeVolume(keeper, name, 2 * MiB),
    isDone: ({ volumes }, name) => volumes.some((each) => each.name === name && each.size === 2 * MiB),
  },
  {
    what: 'rename',
    prepare: volume,
    run: ({ keeper }, name) => renameVolume(keeper, name, `${name}-new`),
    isDone: ({ volumes }, name) => volumes.some((each) => each.name === `${name}-new` && each.id === name),
  },
  {
    what: 'delete, with a snapshot',
    prepare: snapshotted,
    run: ({ keeper }, name) => deleteVolume(keeper, name),
    isDone: ({ volumes }, name) => !volumes.some(({ id }) => id === name),
  },
  {
    what: 'snapshot',
    prepare: volume,
    run: ({ keeper }, name) => createSnapshot(keeper, name, 'one', `${name}-one`),
    isDone: ({ volumes }, name) =>
      volumes.some(({ snapshots }) => snapshots.some(({ id }) => id === `${name}-one`)),
  },
  {
    what: 'roll back past a newer snapshot',
    prepare: async (daemon, name) => {
      await snapshotted(daemon, name);
      await createSnapshot(daemon.keeper, name, 'two', '');
    },
    run: ({ keeper }, name) => rollback(keeper, name, 'one', true),
    isDone: ({ volumes }, name) => volumes.find(({ id }) => id === name)?.snapshots.length === 1,
  },
  {
    what: 'delete a snapshot',
    prepare: snapshotted,
    run: ({ keeper }, name) => deleteSnapshot(keeper, name, 'one', false),
    isDone: ({ volumes }, name) => volumes.find(({ id }) => id === name)?.snapshots.length === 0,
  },
  {
    what: 'hold a snapshot',
    prepare: snapshotted,
    run: ({ keeper }, name) => holdSnapshot(keeper, name, 'one', 'me'),
    isDone: (found, name) => holdsOf(found, name) === 1,
  },
  {
    what: 'let go of a snapshot',
    prepare: held,
    run: ({ keeper }, name) => releaseSnapshot(keeper, name, 'one', 'me'),
    isDone: (found, name) => holdsOf(found, name) === 0,
  },
  {
    what: 'let go of a snapshot that is to go then',
    prepare: async (daemon, name) => {
      await held(daemon, name);
      await deleteSnapshot(daemon.keeper, name, 'one', true);
    },
    run: ({ keeper }, name) => releaseSnapshot(keeper, name, 'one', 'me'),
    isDone: (found, name) => holdsOf(found, name) === undefined,
  },
  {
    what: 'make a template',
    prepare: snapshotted,
    run: ({ keeper }, name) =>
      createTemplate(keeper, { name: `${name}-t`, volume: name, snapshot: 'one', id: `${name}-t` }),
    isDone: ({ templates }, name) => templates.some(({ id }) => id === `${name}-t`),
  },
  {
    what: 'clone, larger',
    prepare: template,
    run: ({ keeper }, name) =>
      cloneTemplate(keeper, { template: `${name}-t`, name: `${name}-c`, size: 2 * MiB, id: `${name}-c` }),
    isDone: ({ volumes }, name) => volumes.some((each) => each.id === `${name}-c` && each.size === 2 * MiB),
  },
  {
    what: 'delete a template',
    prepare: template,
    run: ({ keeper }, name) => deleteTemplate(keeper, `${name}-t`),
    isDone: ({ templates }, name) => !templates.some(({ id }) => id === `${name}-t`),
  },
  {
    what: 'delete an imported template',
    prepare: (daemon, name) => imported(daemon, name, 'template'),
    run: ({ keeper }, name) => deleteTemplate(keeper, name),
    isDone: ({ templates }, name) => !templates.some(({ id }) => id === name),
  },
  ...(['raw', 'qcow2'] as const).map((format): Operation => ({
    what: `export as ${format}`,
    prepare: volume,
    run: (daemon, name) => exported(daemon, name, format),
    // It changes nothing that stays.
    isDone: ({ volumes }, name) => volumes.some((each) => each.id === name && each.snapshots.length === 0),
  })),
  {
    what: 'import a template',
    run: (daemon, name) => imported(daemon, name, 'template'),
    isDone: ({ templates }, name) => templates.some(({ id }) => id === name),
  },
  {
    what: 'import a volume',
    run: (daemon, name) => imported(daemon, name, 'volume'),
    isDone: ({ volumes }, name) => volumes.some(({ id }) => id === name),
  },
];

/** Nothing lies about, and nothing is told that is not so. */
async function inspect({ keeper, imports }: Daemon): Promise<Inventory> {
  const found = await inventory(keeper);
  must(found.unfinished.length === 0, `no unfinished zvol: ${JSON.stringify(found.unfinished)}`);
  const own = run('zfs', 'list', '-H', '-o', 'name', '-t', 'volume', '-r', pool)
    .split('\n')
    .filter((name) => name.startsWith(`${pool}/${ownFolder}/`));
  for (const name of own)
    must(
      found.templates.some(({ snapshot }) => snapshot.fullName.startsWith(`${name}@`)),
      `${name} is a template's`,
    );
  for (const { path } of found.volumes) await thisMachine.awaitDevice(path, true);
  for (const job of imports.list(true)) must(hasEnded(job), `the import ${job.id} has ended`);
  return found;
}

let count = 0;

/** Kills an operation behind one of its changes. @returns false if it has no more than that */
async function step({ what, prepare, run: operate, isDone }: Operation, most: number): Promise<boolean> {
  const name = `v${(count += 1)}`;
  await prepare?.(daemon(runCommand), name);
  const { command, died } = mortal(most);
  const outcome = await Promise.race([operate(daemon(command), name).then(() => 'ended' as const), died]);
  const next = daemon(runCommand);
  const reports: string[] = [];
  for (const each of [next.imports, next.exports]) await each.recover((words) => void reports.push(words));
  const job = next.imports.list(true).find(({ id }) => id === name);
  const found = await inspect(next);
  // What its journal says of an import is what is there.
  if (job?.state === 'completed' && what.startsWith('import'))
    must(isDone(found, name), `what the import ${name} says it made is there`);
  if (outcome === 'ended') must(isDone(found, name), 'it is done');
  else if (!isDone(found, name) && job === undefined) {
    await operate(next, name);
    must(isDone(await inspect(next), name), 'it is done when it is asked for again');
  }
  console.log(
    `  ${what}, behind change ${most}: ${outcome}${reports.length > 0 ? ` (${reports.join('; ')})` : ''}`,
  );
  return outcome === 'died';
}

mkdirSync(folder, { recursive: true });
writeFileSync(source, randomBytes(MiB));
const remove = scratchPool(pool, folder, 256 * MiB);
const code = await runParts(
  operations.map((operation) => [
    `${operation.what}, killed behind each change`,
    async () => {
      for (let most = 1; await step(operation, most); most += 1);
    },
  ]),
);
remove();
if (existsSync(folder)) rmSync(folder, { recursive: true });
process.exit(code);
