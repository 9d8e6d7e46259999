import { execFile } from 'node:child_process';
import { open } from 'node:fs/promises';
import { promisify } from 'node:util';
import { readDisk } from '../../src/qemu/qcow2.ts';
import { leaveReferences, readReferences } from '../support/qcow2.ts';
import { fakeQemu, Refused, type FakeQemu, type Properties } from './qemu-disks.ts';

const run = promisify(execFile);

/** A QEMU whose snapshots are real ones, in the files of its disks: it carries them out disk by disk, as QEMU does. */
export interface SnapshotQemu {
  readonly qemu: FakeQemu;
  /** All steps so far: a command as it comes, `COMMAND DISK` when it is through on a disk, `COMMAND done` before its answer. */
  readonly steps: string[];
  /** Waited for after each step. */
  onStep: (step: string) => Promise<void>;
  /** The next job ends with these words, on no disk. */
  jobFails: string | undefined;
  /** Its power is cut: whatever it is at, it does no more of it, and says nothing. */
  die(): Promise<void>;
}

interface Job {
  readonly id: string;
  readonly type: string;
  readonly status: 'concluded';
  readonly error?: string;
}

/** Bytes of memory that a saved machine has here. */
export const memorySize = 2 ** 20;

/** @param files the files of its nodes. */
export async function snapshotQemu(path: string, files: ReadonlyMap<string, string>): Promise<SnapshotQemu> {
  let dead = false;
  let jobs: readonly Job[] = [];
  /** What QEMU has not written down yet of what it is at. */
  let unwritten: () => Promise<void> = () => Promise.resolve();
  const step = async (name: string): Promise<void> => {
    self.steps.push(name);
    await self.onStep(name);
    // Nobody hears of it any more.
    if (dead) await new Promise(() => undefined);
  };
  const fileOf = (node: string): string => {
    const file = files.get(node);
    if (file === undefined) throw new Refused(`Device '${node}' not found`);
    return file;
  };
  const has = (node: string, tag: string): boolean =>
    snapshotsIn(fileOf(node)).some(({ name }) => name === tag);
  const take = async (command: string, nodes: readonly string[], tag: string): Promise<void> => {
    const duplicate = nodes.find((node) => has(node, tag));
    if (duplicate !== undefined)
      throw new Refused(`Snapshot with name '${tag}' already exists on '${duplicate}'`);
    for (const node of nodes) {
      await run('qemu-img', ['snapshot', '-q', '-c', tag, fileOf(node)]);
      await step(`${command} ${node}`);
    }
  };
  const each = async (
    command: string,
    flag: '-a' | '-d',
    nodes: readonly string[],
    tag: string,
  ): Promise<void> => {
    for (const node of nodes) {
      const file = fileOf(node);
      const before = await readReferences(file);
      await run('qemu-img', ['snapshot', '-q', flag, tag, file]);
      // What it gives back it writes down last.
      unwritten = () => leaveReferences(file, before);
      await step(`${command} ${node}`);
    }
    unwritten = () => Promise.resolve();
  };
  const job = async (type: string, args: Properties): Promise<object> => {
    const [tag, nodes] = [String(args['tag']), args['devices'] as readonly string[]];
    const about = { id: String(args['job-id']), type, status: 'concluded' } as const;
    const error = self.jobFails;
    self.jobFails = undefined;
    if (error === undefined) {
      if (type === 'snapshot-save') {
        await take(type, nodes, tag);
        await markMemory(fileOf(String(args['vmstate'])), tag);
      } else if (type === 'snapshot-load') await each(type, '-a', nodes, tag);
      else
        await each(
          type,
          '-d',
          nodes.filter((node) => has(node, tag)),
          tag,
        );
    }
    jobs = [{ ...about, ...(error === undefined ? {} : { error }) }];
    await step(`${type} done`);
    return {};
  };
  const more = async (execute: string, args: Properties): Promise<unknown> => {
    if (dead) return new Promise(() => undefined);
    switch (execute) {
      case 'transaction': {
        await step(execute);
        const actions = args['actions'] as readonly { data: { device: string; name: string } }[];
        const nodes = actions.map(({ data }) => data.device);
        await take(execute, nodes, actions[0]?.data.name ?? '');
        await step(`${execute} done`);
        return {};
      }
      case 'snapshot-save':
      case 'snapshot-load':
      case 'snapshot-delete':
        await step(execute);
        return job(execute, args);
      case 'stop':
      case 'cont':
        self.qemu.status = execute === 'stop' ? 'paused' : 'running';
        await step(execute);
        return {};
      case 'query-jobs':
        return jobs;
      case 'job-dismiss':
        jobs = jobs.filter(({ id }) => id !== args['id']);
        return {};
      case 'query-migrate':
        return {};
      case 'query-named-block-nodes':
        return [...files].map(([node, file]) => ({
          'node-name': node,
          image: {
            'virtual-size': 0,
            snapshots: snapshotsIn(file).map(({ id, name, memory }) => ({
              id,
              name,
              'vm-state-size': memory,
            })),
          },
        }));
      default:
        return undefined;
    }
  };
  const qemu = await fakeQemu(path, more);
  const self: SnapshotQemu = {
    qemu,
    steps: [],
    onStep: () => Promise.resolve(),
    jobFails: undefined,
    die: async () => {
      dead = true;
      await unwritten();
      await qemu.close();
    },
  };
  return self;
}

function snapshotsIn(file: string): readonly { id: string; name: string; memory: number }[] {
  const content = readDisk(file);
  return content.kind === 'qcow2' ? content.qcow2.snapshots : [];
}

/** Has the newest snapshot of a qcow2 count as one with memory, as its table has that, without any. */
async function markMemory(path: string, tag: string): Promise<void> {
  const file = await open(path, 'r+');
  try {
    const bytes = await file.readFile();
    const count = bytes.readUInt32BE(60);
    let at = Number(bytes.readBigUInt64BE(64));
    for (let i = 0; i < count; i += 1) {
      const [id, name, extra] = [
        bytes.readUInt16BE(at + 12),
        bytes.readUInt16BE(at + 14),
        bytes.readUInt32BE(at + 36),
      ];
      const begin = at + 40 + extra + id;
      if (bytes.toString('utf8', begin, begin + name) === tag) {
        const size = Buffer.alloc(8);
        size.writeBigUInt64BE(BigInt(memorySize));
        await file.write(size, 0, 8, at + 40);
        await file.write(size, 4, 4, at + 32);
      }
      at += Math.ceil((begin + name - at) / 8) * 8;
    }
  } finally {
    await file.close();
  }
}
