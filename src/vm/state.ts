import * as v from 'valibot';
import { Failure, messageOf } from '../core/errors.ts';
import type { DriverName } from '../template/spec.ts';
import { storageSchema } from '../template/storage.ts';
import { newIdentity } from './identity.ts';

/**
 * What zfsdev remembers of an instance, beside its spec. Whether it runs is never remembered but looked up.
 *
 * ```
 *            create            start                  guest is ready
 *  (nothing) ------> creating -------> starting ----------------------> started
 *                       |                 ^  |                             |
 *                       |                 |  '--- machine ended ---.      | machine ended
 *                       '----- created ---'                        v      v
 *                                                               created / stopped
 * ```
 *
 * `creating` and `starting` are only left by their own command, which holds the instance's lock all the while: found
 * without a holder, they tell that the command was killed.
 */
const schema = v.object({
  version: v.literal(1),
  driver: v.picklist(['qemu', 'lima']),
  phase: v.picklist(['creating', 'created', 'starting', 'started']),
  /** ISO 8601. */
  created: v.string(),
  imageDigest: v.string(),
  mac: v.string(),
  machineId: v.string(),
  /** Of 127.0.0.1, while it runs. */
  sshPort: v.optional(v.number()),
  /** Of 127.0.0.1, while it runs: the agent's. */
  commandPort: v.optional(v.number()),
  /** Its memory lies in a file, and it is there only to be saved as a warm state. */
  seed: v.optional(v.literal(true)),
  /** The warm state its disk stands on; absent for one that booted from the image. */
  warm: v.optional(v.string()),
  /** The process a disposable machine belongs to; without it nobody needs the machine any more. */
  owner: v.optional(v.object({ pid: v.number(), started: v.string() })),
  /** Lima's home that holds a machine of the Lima driver. */
  limaHome: v.optional(v.string()),
  /** Somebody else made it, with Lima: it is looked after, and never deleted. */
  adopted: v.optional(v.literal(true)),
  accelerator: v.optional(v.picklist(['kvm', 'hvf', 'tcg'])),
  /** ISO 8601; when the last start began. */
  started: v.optional(v.string()),
  /** Most bytes the disk's file can take on the host, by `qemu-img measure`. */
  diskBound: v.number(),
  /** Where the disks of its storage were when it last ran, or where `zfsdev disk` has put them since, by their names. */
  storage: v.optional(v.record(v.string(), v.string())),
  /** What its spec had when it was made, of what `zfsdev disk` has changed since. */
  made: v.optional(v.object({ disk: v.optional(v.number()), storage: v.optional(storageSchema) })),
});

export type State = v.InferOutput<typeof schema>;

/** @throws Failure `files` if the text isn't a state. */
export function parseState(text: string): State {
  try {
    return v.parse(schema, JSON.parse(text));
  } catch (error) {
    throw new Failure('files', `state.json is damaged: ${messageOf(error)}`, { cause: error });
  }
}

/** The state of an instance whose creation begins now. */
export function newState(driver: DriverName): State {
  return {
    version: 1,
    driver,
    phase: 'creating',
    created: new Date().toISOString(),
    imageDigest: '',
    ...newIdentity(),
    diskBound: 0,
  };
}
