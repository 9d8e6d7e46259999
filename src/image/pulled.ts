import { join } from 'node:path';
import * as v from 'valibot';
import { exists } from '../host/files.ts';

/** Raised whenever an older zfsdev could not use what a newer one pulled, or the other way round. */
export const pulledFormat = 1;

/** What is known of an image that was pulled: `manifest.json` in its folder, and what `--json` shows. */
export interface PulledManifest {
  readonly kind: 'pulled';
  readonly format: number;
  /** sha256 of what was pulled, in hex: its name. */
  readonly digest: string;
  /** Where it was told apart by one. */
  readonly sha512?: string | undefined;
  /** The address or the absolute path that it came from. */
  readonly location: string;
  /** The file it was read from, as it was then; a file that still is so need not be read again. */
  readonly file?: { readonly bytes: number; readonly modified: number } | undefined;
  /** The form it had; it is kept as qcow2. */
  readonly sourceFormat: 'qcow2' | 'raw';
  /** Of its disk, as the guest sees it. */
  readonly virtualBytes: number;
  /** ISO 8601, UTC. */
  readonly createdAt: string;
}

export const pulledManifest: v.GenericSchema<unknown, PulledManifest> = v.object({
  kind: v.literal('pulled'),
  format: v.literal(pulledFormat),
  digest: v.string(),
  sha512: v.optional(v.string()),
  location: v.string(),
  file: v.optional(v.object({ bytes: v.number(), modified: v.number() })),
  sourceFormat: v.picklist(['qcow2', 'raw']),
  virtualBytes: v.number(),
  createdAt: v.string(),
});

/** A whole image that was pulled; every path is absolute. */
export interface PulledImage {
  readonly kind: 'pulled';
  readonly digest: string;
  readonly folder: string;
  readonly disk: string;
  readonly manifest: PulledManifest;
}

/** Puts together what `inspectImage` gives; a text where something is missing. */
export function pulledImage(folder: string, manifest: PulledManifest): PulledImage | string {
  const disk = join(folder, 'disk.qcow2');
  if (!exists(disk)) return 'disk.qcow2 is missing';
  return { kind: 'pulled', digest: manifest.digest, folder, disk, manifest };
}
