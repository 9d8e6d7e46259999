import { mkdir, truncate, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import type { Command, Ended } from '../../src/zvold/command.ts';
import type { Machine } from '../../src/zvold/machine.ts';
import { runProgram } from './zfs-programs.ts';

export interface Dataset {
  readonly type: 'filesystem' | 'volume' | 'snapshot';
  readonly properties: Map<string, string>;
  readonly holds: Set<string>;
  /** Of a volume, a clone's among them; devices come with it. */
  origin: string;
}

const done: Ended = { exitCode: 0, stdout: '', stderr: '' };
const refuse = (stderr: string): Ended => ({ exitCode: 1, stdout: '', stderr: `${stderr}\n` });

/** A pool in memory that takes the calls zvold makes of `zfs`, in ZFS's own words, and refuses any other. */
export class FakeZfs {
  readonly pool = 'tank';
  state: string | undefined = 'ONLINE';
  /** Devices that somebody uses, with who. */
  readonly users = new Map<string, string[]>();
  readonly calls: string[] = [];
  /** Called before each call; what it throws is thrown by the call. */
  before: (argv: readonly string[]) => void | Promise<void> = () => undefined;
  devicesCome = true;
  /** Bytes that datasets can still take. */
  available = 2 ** 40;
  /** False for a `zfs` that knows no channel programs. */
  programs = true;
  #count = 0;
  readonly datasets = new Map<string, Dataset>([['tank', this.#dataset('filesystem')]]);

  readonly command: Command = async (argv, { onOutput, input = '' }) => {
    this.calls.push(argv.join(' '));
    await this.before(argv);
    const ended = this.#run(argv, input);
    if (!onOutput) return ended;
    // In pieces, as a pipe has them.
    for (let at = 0; at < ended.stdout.length; at += 50) onOutput(ended.stdout.slice(at, at + 50));
    return { ...ended, stdout: '' };
  };

  #run(argv: readonly string[], input: string): Ended {
    const [program, verb = '', ...words] = argv;
    if (program === 'zpool' && verb === 'sync') return done;
    if (program !== 'zfs') throw new Error(`unexpected: ${argv.join(' ')}`);
    const { flags, rest } = wordsOf(words);
    switch (verb) {
      case 'list':
        return this.#list(flags, rest);
      case 'program':
        return this.programs
          ? runProgram(this, input)
          : refuse("unrecognized command 'program'\nusage: zfs command args ...");
      case 'get':
        return { ...done, stdout: `${this.value(rest[1] ?? '', rest[0] ?? '')}\n` };
      case 'create':
        return this.#create(flags, rest[0] ?? '');
      case 'snapshot':
        return this.#snapshot(flags, rest[0] ?? '');
      case 'clone':
        return this.#clone(flags, rest[0] ?? '', rest[1] ?? '');
      case 'set':
        return this.#set(rest);
      case 'inherit':
        this.get(rest[1] ?? '').properties.delete(rest[0] ?? '');
        return done;
      case 'rename':
        return this.#rename(rest[0] ?? '', rest[1] ?? '');
      case 'destroy':
        return this.#destroy(flags, rest[0] ?? '');
      case 'rollback':
        return this.#rollback(flags, rest[0] ?? '');
      case 'hold':
      case 'release':
        return this.#hold(verb, rest[0] ?? '', rest[1] ?? '');
      default:
        throw new Error(`unexpected: ${argv.join(' ')}`);
    }
  }

  readonly machine: Machine;

  /** @param devices a folder that has a file for each volume, if anything is to be written to them. */
  constructor(devices = '/dev/zvol') {
    const datasetAt = (path: string): string =>
      path.replace(devices, '').replace('/dev/zvol', '').slice(1).replaceAll('+', ' ');
    this.machine = {
      devices,
      awaitDevice: async (path, present) => {
        const name = datasetAt(path);
        if (!this.devicesCome || this.datasets.has(name) !== present)
          throw new Error(`the device ${path} did not ${present ? 'come' : 'go'}`);
        if (present && devices !== '/dev/zvol') await this.#makeDevice(join(devices, name), name);
      },
      // What only a process has open, the kernel does not name.
      claimsOf: (path) =>
        Promise.resolve((this.users.get(path) ?? []).filter((words) => !words.startsWith('open in'))),
      usersOf: (path) => Promise.resolve(this.users.get(path) ?? []),
      flush: () => Promise.resolve(),
      poolState: () => Promise.resolve(this.state),
    };
  }

  async #makeDevice(path: string, name: string): Promise<void> {
    await mkdir(dirname(path), { recursive: true });
    await writeFile(path, '', { flag: 'a' });
    await truncate(path, Number(this.value(name, 'volsize')));
  }

  #dataset(
    type: Dataset['type'],
    properties: readonly (readonly [string, string])[] = [],
    origin = '',
  ): Dataset {
    this.#count += 1;
    const own = [
      ['guid', String(9_000_000 + this.#count)],
      ['creation', String(1_700_000_000 + this.#count)],
    ] as const;
    return { type, properties: new Map([...own, ...properties]), holds: new Set(), origin };
  }

  get(name: string): Dataset {
    const found = this.datasets.get(name);
    if (!found) throw new Error(`the fake has no ${name}`);
    return found;
  }

  snapshotsOf(name: string): string[] {
    return [...this.datasets.keys()].filter((each) => each.startsWith(`${name}@`));
  }

  clonesOf(snapshot: string): string[] {
    return [...this.datasets].filter(([, { origin }]) => origin === snapshot).map(([name]) => name);
  }

  value(name: string, column: string): string {
    const dataset = this.get(name);
    const volume = dataset.type === 'snapshot' ? this.get(name.split('@')[0] ?? '') : dataset;
    const computed: Record<string, () => string> = {
      name: () => name,
      type: () => dataset.type,
      used: () => '4096',
      referenced: () => '8192',
      compressratio: () => '1.50',
      refreservation: () => dataset.properties.get('refreservation') ?? '0',
      origin: () => dataset.origin || '-',
      userrefs: () => (dataset.type === 'snapshot' ? String(dataset.holds.size) : '-'),
      defer_destroy: () => dataset.properties.get('defer_destroy') ?? 'off',
      clones: () => this.clonesOf(name).join(',') || '-',
      available: () => String(this.available),
    };
    // Snapshots have what their volume has.
    return computed[column]?.() ?? dataset.properties.get(column) ?? volume.properties.get(column) ?? '-';
  }

  /** True for a volume that somebody has open. */
  isOpen(name: string): boolean {
    return (this.users.get(`/dev/zvol/${name}`) ?? []).length > 0;
  }

  #list(flags: Map<string, string[]>, roots: readonly string[]): Ended {
    const missing = roots.find((root) => !this.datasets.has(root));
    if (missing !== undefined) return refuse(`cannot open '${missing}': dataset does not exist`);
    const types = flags.get('-t')?.[0]?.split(',') ?? ['filesystem', 'volume'];
    const columns = flags.get('-o')?.[0]?.split(',') ?? [];
    const within = (name: string): boolean =>
      roots.some(
        (root) =>
          name === root || (flags.has('-r') && (name.startsWith(`${root}/`) || name.startsWith(`${root}@`))),
      );
    const lines = [...this.datasets]
      .filter(([name, { type }]) => within(name) && types.includes(type))
      .map(([name]) => columns.map((column) => this.value(name, column)).join('\t'));
    return { ...done, stdout: lines.map((line) => `${line}\n`).join('') };
  }

  #create(flags: Map<string, string[]>, name: string): Ended {
    if (this.datasets.has(name)) return refuse(`cannot create '${name}': dataset already exists`);
    const options = (flags.get('-o') ?? []).map((text) => text.split('=') as [string, string]);
    const size = flags.get('-V')?.[0];
    if (size === undefined) this.datasets.set(name, this.#dataset('filesystem', options));
    else {
      const sizes = [
        ['volsize', size],
        ['volblocksize', flags.get('-b')?.[0] ?? ''],
      ] as const;
      const reserved = flags.has('-s') ? [] : ([['refreservation', size]] as const);
      this.datasets.set(name, this.#dataset('volume', [...sizes, ...reserved, ...options]));
    }
    return done;
  }

  #snapshot(flags: Map<string, string[]>, name: string): Ended {
    if (this.datasets.has(name)) return refuse(`cannot create snapshot '${name}': dataset already exists`);
    const [volume = ''] = name.split('@');
    if (!this.datasets.has(volume)) return refuse(`cannot open '${volume}': dataset does not exist`);
    this.takeSnapshot(
      name,
      (flags.get('-o') ?? []).map((text) => text.split('=') as [string, string]),
    );
    return done;
  }

  /** A snapshot keeps the size that its volume has. */
  takeSnapshot(name: string, options: readonly (readonly [string, string])[]): void {
    const size = ['volsize', this.value(name.split('@')[0] ?? '', 'volsize')] as const;
    this.datasets.set(name, this.#dataset('snapshot', [size, ...options]));
  }

  #clone(flags: Map<string, string[]>, origin: string, name: string): Ended {
    if (this.datasets.has(name)) return refuse(`cannot create '${name}': dataset already exists`);
    if (!this.datasets.has(origin)) return refuse(`cannot open '${origin}': dataset does not exist`);
    const options = (flags.get('-o') ?? []).map((text) => text.split('=') as [string, string]);
    const sizes = ['volsize', 'volblocksize'].map((column) => [column, this.value(origin, column)] as const);
    this.datasets.set(name, this.#dataset('volume', [...sizes, ...options], origin));
    return done;
  }

  #set(words: readonly string[]): Ended {
    const name = words.at(-1) ?? '';
    for (const word of words.slice(0, -1)) {
      const [key = '', value = ''] = word.split('=');
      this.get(name).properties.set(key, value);
    }
    return done;
  }

  #rename(from: string, to: string): Ended {
    if (this.datasets.has(to)) return refuse(`cannot rename '${from}': dataset already exists`);
    for (const [name, dataset] of [...this.datasets]) {
      if (name === from || name.startsWith(`${from}@`)) {
        this.datasets.delete(name);
        this.datasets.set(to + name.slice(from.length), dataset);
      }
      if (dataset.origin.startsWith(`${from}@`)) dataset.origin = to + dataset.origin.slice(from.length);
    }
    return done;
  }

  #destroy(flags: Map<string, string[]>, name: string): Ended {
    if (!this.datasets.has(name)) return refuse(`cannot open '${name}': dataset does not exist`);
    const all = name.includes('@') ? [name] : [name, ...this.snapshotsOf(name)];
    if (all.length > 1 && !flags.has('-r')) return refuse(`cannot destroy '${name}': volume has children`);
    const kept = all.filter((each) => this.clonesOf(each).length > 0 || this.get(each).holds.size > 0);
    if (kept.length > 0 && flags.has('-d')) {
      this.get(name).properties.set('defer_destroy', 'on');
      return done;
    }
    if (kept.length > 0) return refuse(`cannot destroy '${name}': volume has dependent clones`);
    // As ZFS does it: snapshots go before it is seen that their volume is open.
    for (const each of all.slice(1)) this.remove(each);
    if (this.isOpen(name)) return refuse(`cannot destroy '${name}': dataset is busy`);
    this.remove(name);
    return done;
  }

  /** Takes a dataset away, and the snapshot that was only waiting for that. */
  remove(name: string): void {
    const { origin } = this.get(name);
    this.datasets.delete(name);
    const waits = this.datasets.get(origin)?.properties.get('defer_destroy') === 'on';
    if (waits && this.clonesOf(origin).length === 0) this.datasets.delete(origin);
  }

  #rollback(flags: Map<string, string[]>, name: string): Ended {
    const all = this.snapshotsOf(name.split('@')[0] ?? '');
    const newer = all.slice(all.indexOf(name) + 1);
    if (newer.length > 0 && !flags.has('-r'))
      return refuse(`cannot rollback to '${name}': more recent snapshots or bookmarks exist`);
    for (const each of newer) this.datasets.delete(each);
    this.get(name.split('@')[0] ?? '').properties.set('volsize', this.value(name, 'volsize'));
    return done;
  }

  #hold(verb: 'hold' | 'release', tag: string, name: string): Ended {
    const { holds, properties } = this.get(name);
    if (verb === 'hold' ? holds.has(tag) : !holds.has(tag))
      return refuse(
        `cannot ${verb}: ${verb === 'hold' ? 'tag already exists on this dataset' : 'no such tag on this dataset'}`,
      );
    if (verb === 'hold') holds.add(tag);
    else holds.delete(tag);
    if (holds.size === 0 && properties.get('defer_destroy') === 'on') this.datasets.delete(name);
    return done;
  }
}

/** Flags, those that are given several times with all of their values, and what is left. */
function wordsOf(words: readonly string[]): { flags: Map<string, string[]>; rest: string[] } {
  const withValue = new Set(['-o', '-t', '-s', '-b', '-V', '-d']);
  const flags = new Map<string, string[]>();
  const rest: string[] = [];
  const isCreate = words.includes('-V');
  for (let index = 0; index < words.length; index += 1) {
    const word = words[index] ?? '';
    if (!word.startsWith('-')) rest.push(word);
    // `-s` sorts a list and makes a volume sparse; `-d` defers.
    else if (!withValue.has(word) || word === '-d' || (word === '-s' && isCreate)) flags.set(word, []);
    else {
      index += 1;
      flags.set(word, [...(flags.get(word) ?? []), words[index] ?? '']);
    }
  }
  return { flags, rest };
}
