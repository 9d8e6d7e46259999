import * as v from 'valibot';
import { bytes, type Bytes } from '../core/bytes.ts';
import { Failure } from '../core/errors.ts';
import { parseName, type InstanceName } from '../core/names.ts';
import { storageSchema, type StorageDevice } from './storage.ts';
import { poolNamePattern, propertyValuePattern } from './values.ts';

export type DriverName = 'qemu' | 'lima';
export type AcceleratorChoice = 'auto' | 'kvm' | 'hvf' | 'tcg';

/** One line of the worst-case table: a part of the machine and the most it can take on the guest's disk. */
export interface WorstCasePart {
  readonly part: 'base' | 'packages' | 'tools' | 'source' | 'artifacts' | 'kernel' | 'pool' | 'headroom';
  readonly size: Bytes;
}

export interface PoolSpec {
  readonly name: string;
  readonly layout: 'mirror';
  /** Sparse files in the guest, on loop devices; one mirror of all. */
  readonly fileCount: number;
  readonly fileSize: Bytes;
  readonly ashift: number;
  readonly autotrim: boolean;
  /** File system properties of the pool's root dataset (`compression`, `quota` ...), in the template's order. */
  readonly properties: Readonly<Record<string, string>>;
}

/** A kernel that was taken in (`kernels/<digest>`), and what `uname -r` says under it. */
export interface KernelChoice {
  readonly digest: string;
  readonly release: string;
}

/** An image that zfsdev builds of Debian packages. */
export interface BuiltImageSpec {
  readonly flavour: 'zfs' | 'base';
  readonly suite: 'trixie' | 'sid';
}

/** Somebody's cloud image, which a NoCloud seed makes one's own. */
export interface CloudImageSpec {
  /** `zfs`: the provisioning brings OpenZFS to it, if it isn't there. */
  readonly flavour: 'zfs' | 'base';
  /** An http(s) address, or the absolute path of a file. */
  readonly location: string;
  /** `sha256:` or `sha512:` and hexadecimal digits; always there for an address. */
  readonly digest?: string;
  /** What it was made for; anything if left out. */
  readonly arch?: 'x86_64' | 'aarch64';
  readonly firmware: 'uefi' | 'bios';
}

export type ImageSpec = BuiltImageSpec | CloudImageSpec;

/** A template after defaults, flags and validation: the only form that the rest of the code sees. */
export interface Spec {
  /** The template's name (`zfs-test`), or the path of the user's file. */
  readonly template: string;
  readonly name: InstanceName;
  readonly description: string;
  /** `undefined` where neither the template nor the user chose: the platform decides. */
  readonly driver?: DriverName;
  readonly accelerator: AcceleratorChoice;
  readonly cpus: number;
  readonly memory: Bytes;
  /** Virtual size of the machine's disk. */
  readonly disk: Bytes;
  readonly image: ImageSpec;
  readonly pool?: PoolSpec;
  /** A kernel of the user's own instead of the image's; `undefined` for that one. */
  readonly kernel?: KernelChoice;
  /** The tools of a kernel build are installed; `undefined` is no. */
  readonly buildTools?: boolean;
  /** Disks and shares beside the disk with the root file system; `undefined` is none. */
  readonly storage?: readonly StorageDevice[];
  readonly worstCase: readonly WorstCasePart[];
}

/** True for somebody's cloud image. */
export function isCloudImage(image: ImageSpec): image is CloudImageSpec {
  return 'location' in image;
}

/** The image of a machine that the built-in driver boots from an image of its own; a bug if it is another one. */
export function builtImage({
  image,
  buildTools = false,
}: Pick<Spec, 'image' | 'buildTools'>): BuiltImageSpec & { readonly tools: boolean } {
  if (isCloudImage(image)) throw new Error(`not an image that zfsdev builds: ${image.location}`);
  return { ...image, tools: buildTools };
}

/** The worst case of a machine's disk in bytes: all its parts together. */
export function worstCaseTotal(parts: readonly WorstCasePart[]): Bytes {
  return bytes(parts.reduce((sum, { size }) => sum + size, 0));
}

const size = v.pipe(v.number(), v.safeInteger(), v.minValue(0), v.transform(bytes));
const count = v.pipe(v.number(), v.safeInteger(), v.minValue(1));

const pool = v.strictObject({
  name: v.pipe(v.string(), v.regex(poolNamePattern)),
  layout: v.literal('mirror'),
  fileCount: count,
  fileSize: size,
  ashift: count,
  autotrim: v.boolean(),
  properties: v.record(v.string(), v.pipe(v.string(), v.regex(propertyValuePattern))),
});

const flavour = v.picklist(['zfs', 'base']);

const image: v.GenericSchema<unknown, ImageSpec> = v.union([
  v.strictObject({ flavour, suite: v.picklist(['trixie', 'sid']) }),
  v.strictObject({
    flavour,
    location: v.string(),
    digest: v.exactOptional(v.string()),
    arch: v.exactOptional(v.picklist(['x86_64', 'aarch64'])),
    firmware: v.picklist(['uefi', 'bios']),
  }),
]);

// Only the form is checked: a spec was made by `resolveTemplate`, and an instance of an older version with other
// limits must stay usable.
const spec: v.GenericSchema<unknown, Spec> = v.strictObject({
  template: v.string(),
  name: v.pipe(v.string(), v.check(isName, 'not a name'), v.transform(parseName)),
  description: v.string(),
  driver: v.exactOptional(v.picklist(['qemu', 'lima'])),
  accelerator: v.picklist(['auto', 'kvm', 'hvf', 'tcg']),
  cpus: count,
  memory: size,
  disk: size,
  image,
  pool: v.exactOptional(pool),
  kernel: v.exactOptional(v.strictObject({ digest: v.string(), release: v.string() })),
  buildTools: v.exactOptional(v.boolean()),
  storage: v.exactOptional(storageSchema),
  worstCase: v.array(
    v.strictObject({
      part: v.picklist(['base', 'packages', 'tools', 'source', 'artifacts', 'kernel', 'pool', 'headroom']),
      size,
    }),
  ),
});

function isName(text: string): boolean {
  try {
    return parseName(text) === text;
  } catch (error) {
    if (error instanceof Failure) return false;
    throw error;
  }
}

/** A spec as the text of a `spec.json`; `parseSpec` reads it back. */
export function formatSpec(value: Spec): string {
  return `${JSON.stringify(value, null, 2)}\n`;
}

/**
 * Reads the text of a `spec.json`.
 * @throws Failure `files` that says where it is damaged.
 */
export function parseSpec(text: string): Spec {
  let input: unknown;
  try {
    input = JSON.parse(text);
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw error;
    throw new Failure('files', `its spec.json is damaged: ${error.message}`, { cause: error });
  }
  const result = v.safeParse(spec, input);
  if (result.success) return result.output;
  const problems = result.issues.map((issue) => {
    const path = v.getDotPath(issue);
    return path === null ? issue.message : `${path}: ${issue.message}`;
  });
  throw new Failure('files', `its spec.json is damaged: ${problems.join('; ')}`);
}
