import { readdir, readFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import * as v from 'valibot';
import { Failure, hasCode } from '../core/errors.ts';
import type { Context } from '../host/context.ts';
import { exists } from '../host/files.ts';
import { installCommand } from '../host/packages.ts';
import { findOnPath } from '../host/programs.ts';
import type { Architecture } from './machine.ts';

/** A file that QEMU opens as flash memory. */
export interface FlashFile {
  readonly path: string;
  readonly format: 'raw' | 'qcow2';
}

/** A UEFI firmware of this host. */
export interface UefiFirmware {
  readonly code: FlashFile;
  /** What a machine's own variables begin as; absent where the firmware keeps none. */
  readonly variables?: FlashFile;
}

const flashFile = v.object({ filename: v.string(), format: v.picklist(['raw', 'qcow2']) });

/** What is read of a firmware's descriptor (docs/interop/firmware.json in QEMU's source). */
const descriptor = v.object({
  'interface-types': v.array(v.string()),
  mapping: v.object({
    device: v.literal('flash'),
    mode: v.optional(v.picklist(['split', 'stateless']), 'split'),
    executable: flashFile,
    'nvram-template': v.optional(flashFile),
  }),
  targets: v.array(v.object({ architecture: v.string(), machines: v.array(v.string()) })),
  features: v.array(v.string()),
});

/** What a machine of ours doesn't have, or an unsigned kernel can't pass. */
const unfit = ['requires-smm', 'enrolled-keys'];

/** The board's full names begin like this: `pc-q35-7.2`, `virt-9.0`. */
const boards: Readonly<Record<Architecture, string>> = { x86_64: 'pc-q35-', aarch64: 'virt-' };

/** Reads the text of a descriptor; undefined if it is of no firmware that a machine here can boot with. */
export function parseDescriptor(text: string, architecture: Architecture): UefiFirmware | undefined {
  let input: unknown;
  try {
    input = JSON.parse(text);
  } catch (error) {
    if (error instanceof SyntaxError) return undefined;
    throw error;
  }
  const parsed = v.safeParse(descriptor, input);
  if (!parsed.success) return undefined;
  const { features, mapping, targets } = parsed.output;
  const fits = targets.some(
    (target) =>
      target.architecture === architecture &&
      target.machines.some((pattern) => pattern.startsWith(boards[architecture])),
  );
  if (!fits || !parsed.output['interface-types'].includes('uefi')) return undefined;
  if (features.some((feature) => unfit.includes(feature))) return undefined;
  const variables = mapping['nvram-template'];
  const asFlash = (file: v.InferOutput<typeof flashFile>): FlashFile => ({
    path: file.filename,
    format: file.format,
  });
  return { code: asFlash(mapping.executable), ...(variables ? { variables: asFlash(variables) } : {}) };
}

/**
 * Finds a UEFI firmware, by the descriptors that every packager puts beside it: in the order of their names, those of the
 * host's administrator first.
 * @param root where the system's own files begin, for tests.
 * @throws Failure `dependency` with the command that installs one
 */
export async function findUefi(
  ctx: Pick<Context, 'env'>,
  architecture: Architecture,
  root = '/',
): Promise<UefiFirmware> {
  for (const text of await descriptors(ctx, architecture, root)) {
    const found = parseDescriptor(text, architecture);
    const files = found ? [found.code, ...(found.variables ? [found.variables] : [])] : [];
    if (found && files.every(({ path }) => exists(join(root, path)))) return found;
  }
  const install = installCommand(uefiThing(architecture));
  throw new Failure('dependency', 'there is no UEFI firmware on this host, which the image is to boot by', {
    hint: [
      install
        ? `${install}\n(or: zfsdev up --install-deps)`
        : 'install the UEFI firmware of QEMU (edk2, OVMF)',
      ...(architecture === 'x86_64'
        ? ['or, if the image boots without: image.firmware: bios in the template']
        : []),
    ].join('\n'),
  });
}

/** The name under which packages of the firmware are known (host/packages.ts). */
export function uefiThing(architecture: Architecture): string {
  return `uefi-${architecture}`;
}

/** Texts of all descriptors; one of a later folder is hidden by its namesake in an earlier one. */
async function descriptors(
  ctx: Pick<Context, 'env'>,
  architecture: Architecture,
  root: string,
): Promise<string[]> {
  const binary = await findOnPath(ctx.env, `qemu-system-${architecture}`);
  const folders = [
    join(root, 'etc/qemu/firmware'),
    ...(binary === undefined ? [] : [join(dirname(dirname(binary)), 'share/qemu/firmware')]),
    join(root, 'usr/share/qemu/firmware'),
  ];
  const byName = new Map<string, string>();
  for (const folder of folders) {
    for (const name of await namesIn(folder)) {
      if (name.endsWith('.json') && !byName.has(name)) byName.set(name, join(folder, name));
    }
  }
  const sorted = [...byName].sort(([a], [b]) => (a < b ? -1 : 1));
  return Promise.all(sorted.map(([, path]) => readFile(path, 'utf8')));
}

async function namesIn(folder: string): Promise<string[]> {
  try {
    return await readdir(folder);
  } catch (error) {
    if (hasCode(error, 'ENOENT', 'ENOTDIR', 'EACCES')) return [];
    throw error;
  }
}
