import * as v from 'valibot';
import { Failure } from '../core/errors.ts';
import { nearest, parseName } from '../core/names.ts';
import { readDigest, readLocation } from './image.ts';
import { checkPropertyName, readProperty } from './properties.ts';
import { readStorage } from './storage-keys.ts';
import type { StorageDevice } from './storage.ts';
import {
  inOneLine,
  readChoice,
  readCount,
  readCpus,
  readDisk,
  readDriver,
  readMemory,
  readPoolFileSize,
  readPoolName,
  readSize,
  readSuite,
  readSwitch,
  readText,
  show,
  type Reader,
} from './values.ts';

/** A schema made of a reader: what the reader throws becomes the problem's text. */
function value<T>(read: Reader<T>) {
  return v.pipe(
    v.unknown(),
    v.rawTransform<unknown, T>(({ dataset, addIssue, NEVER }) => {
      try {
        return read(dataset.value);
      } catch (error) {
        if (!(error instanceof Failure)) throw error;
        addIssue({ message: inOneLine(error) });
        return NEVER;
      }
    }),
  );
}

// What is left out depends on whether there is a location: see `resolveImage`.
const image = v.strictObject({
  flavour: v.exactOptional(value(readChoice('zfs', 'base'))),
  suite: v.exactOptional(value(readSuite)),
  location: v.exactOptional(value(readLocation)),
  digest: v.exactOptional(value(readDigest)),
  arch: v.exactOptional(value(readChoice('x86_64', 'aarch64'))),
  firmware: v.exactOptional(value(readChoice('uefi', 'bios'))),
});

const pool = v.strictObject({
  name: v.optional(value(readPoolName), 'testpool'),
  layout: v.optional(value(readChoice('mirror')), 'mirror'),
  files: v.optional(value(readCount(2, 8)), 2),
  fileSize: value(readPoolFileSize),
  // 2^9 to 2^16 bytes a sector: the range that OpenZFS accepts.
  ashift: v.optional(value(readCount(9, 16)), 12),
  autotrim: v.optional(value(readSwitch), true),
  properties: v.optional(v.record(v.string(), v.unknown()), {}),
});

const worstCase = v.strictObject({
  base: value(readSize),
  packages: v.exactOptional(value(readSize)),
  tools: v.exactOptional(value(readSize)),
  source: v.exactOptional(value(readSize)),
  artifacts: v.exactOptional(value(readSize)),
  kernel: v.exactOptional(value(readSize)),
  pool: v.exactOptional(value(readSize)),
  headroom: v.exactOptional(value(readSize)),
});

const template = v.strictObject({
  name: v.exactOptional(value((input) => parseName(readText(input)))),
  description: value(readText),
  driver: v.exactOptional(value(readDriver)),
  cpus: value(readCpus),
  memory: value(readMemory),
  disk: value(readDisk),
  image: v.optional(image, {}),
  pool: v.exactOptional(pool),
  buildTools: v.optional(value(readSwitch), false),
  // A list: it is read by `readStorage`.
  storage: v.exactOptional(v.unknown()),
  worstCase,
});

type Parsed = v.InferOutput<typeof template>;
type ParsedPool = NonNullable<Parsed['pool']>;

/** A template as its file says it, checked key by key and with defaults filled in; no flags yet. */
export type Template = Readonly<Omit<Parsed, 'pool' | 'storage'>> & {
  /** Paths as they are written. */
  readonly storage?: readonly StorageDevice[];
  readonly pool?: Readonly<Omit<ParsedPool, 'properties'>> & {
    readonly properties: Readonly<Record<string, string>>;
  };
};

/** Keys of the file, outermost first; of a list, the index. */
export type KeyPath = readonly string[];

/** Something wrong with one key; `at` says whether the key itself or its value is to be pointed at. */
export interface KeyProblem {
  readonly path: KeyPath;
  readonly at: 'key' | 'value';
  readonly message: string;
}

/** The maps with a fixed set of keys, by their path. */
const closedMaps: readonly { readonly path: KeyPath; readonly keys: readonly string[] }[] = [
  { path: [], keys: Object.keys(template.entries) },
  { path: ['image'], keys: Object.keys(image.entries) },
  { path: ['pool'], keys: Object.keys(pool.entries) },
  { path: ['worstCase'], keys: Object.keys(worstCase.entries) },
];

function keysAt(path: KeyPath): readonly string[] {
  return closedMaps.find((map) => map.path.join('.') === path.join('.'))?.keys ?? [];
}

/** The parts of the worst-case table, in the order in which they are shown. */
export const partNames = Object.keys(worstCase.entries) as (keyof typeof worstCase.entries)[];

/** Checks the plain value of a template's document; all problems at once. */
export function checkTemplate(input: unknown): { template: Template } | { problems: KeyProblem[] } {
  const lists = listsForMaps(input);
  if (lists.length > 0) return { problems: lists };
  const result = v.safeParse(template, input);
  const problems = [
    // valibot stops at the first unknown key of a map, so that they are looked for here.
    ...(result.issues ?? []).filter((issue) => issue.expected !== 'never').map(toProblem),
    ...closedMaps.flatMap(({ path, keys }) => unknownKeys(input, path, keys)),
  ];
  const properties = readProperties(rawProperties(input), problems);
  const storage = isMap(input) && 'storage' in input ? readStorage(input['storage'], problems) : [];
  if (!result.success || problems.length > 0) return { problems };
  const { pool: found, storage: listed, ...rest } = result.output;
  return {
    template: {
      ...rest,
      ...(found === undefined ? {} : { pool: { ...found, properties } }),
      ...(listed === undefined || storage.length === 0 ? {} : { storage }),
    },
  };
}

/** valibot takes a list for a map whose keys are numbers, and would report each of them. */
function listsForMaps(input: unknown): KeyProblem[] {
  return [...closedMaps.map(({ path }) => path), ['pool', 'properties']]
    .filter((path) => Array.isArray(valueAt(input, path)))
    .map((path) => ({ path, at: 'value' as const, message: 'must be a map, not a list' }));
}

function valueAt(input: unknown, path: KeyPath): unknown {
  return path.reduce<unknown>((value, key) => (isMap(value) ? value[key] : undefined), input);
}

function toProblem(issue: v.BaseIssue<unknown>): KeyProblem {
  const path = (issue.path ?? []).map((item) => String(item.key));
  if (issue.kind === 'schema' && issue.type === 'strict_object') {
    // A key that is missing is reported with its own path, a value that is no map with the map's.
    const missing = issue.path?.at(-1)?.origin === 'key';
    if (missing) return { path, at: 'key', message: 'is missing' };
    const keys = keysAt(path).join(', ');
    return { path, at: 'value', message: `must be a map with the keys ${keys}, not ${show(issue.input)}` };
  }
  if (issue.kind === 'schema')
    return { path, at: 'value', message: `must be a map, not ${show(issue.input)}` };
  return { path, at: 'value', message: issue.message };
}

function unknownKeys(input: unknown, path: KeyPath, keys: readonly string[]): KeyProblem[] {
  const map = valueAt(input, path);
  if (!isMap(map)) return [];
  return Object.keys(map)
    .filter((key) => !keys.includes(key))
    .map((key) => {
      const near = nearest(key, keys);
      const advice = near === undefined ? `the keys here are ${keys.join(', ')}` : `did you mean "${near}"?`;
      return { path: [...path, key], at: 'key', message: `is not a known key; ${advice}` };
    });
}

function isMap(input: unknown): input is Record<string, unknown> {
  return typeof input === 'object' && input !== null && !Array.isArray(input);
}

/** Read from the input itself, so that they are checked even where something else is wrong. */
function rawProperties(input: unknown): Record<string, unknown> {
  const raw = valueAt(input, ['pool', 'properties']);
  return isMap(raw) ? raw : {};
}

function readProperties(raw: Record<string, unknown>, problems: KeyProblem[]): Record<string, string> {
  const properties: Record<string, string> = {};
  for (const [name, input] of Object.entries(raw)) {
    let at: KeyProblem['at'] = 'key';
    try {
      checkPropertyName(name);
      at = 'value';
      properties[name] = readProperty(name, input);
    } catch (error) {
      if (!(error instanceof Failure)) throw error;
      problems.push({ path: ['pool', 'properties', name], at, message: inOneLine(error) });
    }
  }
  return properties;
}
