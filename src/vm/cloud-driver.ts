import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Claim } from '../budget/admission.ts';
import { bytes, exactBytes, formatBytes } from '../core/bytes.ts';
import { Failure } from '../core/errors.ts';
import { step } from '../core/events.ts';
import { together } from '../core/together.ts';
import { seedContents, seedLabel } from '../guest/cloud-init.ts';
import { newHostKey, userPublicKey } from '../guest/keys.ts';
import type { Context } from '../host/context.ts';
import { writeFileAtomically } from '../host/files.ts';
import { findPackageRoot } from '../host/package-root.ts';
import { printable } from '../host/run.ts';
import { isoImage } from '../image/iso9660.ts';
import { findPulled } from '../image/keep.ts';
import type { PulledImage } from '../image/pulled.ts';
import { readProvisionScripts } from '../lima/provision.ts';
import { planArgv } from '../qemu/argv.ts';
import { findQemu, hostArchitecture } from '../qemu/binary.ts';
import { findUefi } from '../qemu/firmware.ts';
import { measure } from '../qemu/img.ts';
import { renderMounts } from '../template/mounts.ts';
import { renderPoolConf } from '../template/pool-conf.ts';
import { isCloudImage, type CloudImageSpec, type Spec } from '../template/spec.ts';
import { waitForCloud } from './cloud-ready.ts';
import type { CreateOptions, Driver } from './driver.ts';
import { layOutDisk } from './instance-files.ts';
import type { Instance } from './instance.ts';
import { pullImage, wantedImage } from './pull.ts';
import { qemuDriver, sshOf } from './qemu-driver.ts';
import { firmwareBoot, guestOf, machineOf, startMachine } from './qemu-start.ts';
import { newState, type State } from './state.ts';
import type { SnapshotMachine } from './snapshot-driver.ts';
import { plannedStorage } from './storage-check.ts';
import { storageClaims } from './storage-claims.ts';
import { writeState } from './store.ts';

/**
 * Runs machines that boot from somebody's cloud image by qemu-system: like those of the built-in images but for how they
 * become themselves, which is cloud-init's work, and how they are reached, which is by ssh. They can't be forked: what a
 * fork has to change in a guest is zfsdev's own to know only in its own images.
 */
export function cloudDriver(ctx: Context): Driver {
  const qemu = qemuDriver(ctx);
  return {
    stop: (instance, options) => qemu.stop(instance, options),
    remove: (name) => qemu.remove(name),
    channel: (instance, streams) => qemu.channel(instance, streams),
    check: async (spec) => {
      await qemu.check(spec);
      await checkImage(ctx, spec);
    },
    claims: (spec) => claims(ctx, spec),
    create: (spec, state, options) => create(ctx, spec, state, options),
    start: async (instance, undo, deadline) => {
      await qemu.closeChannel(instance);
      return startMachine(ctx, instance, undo, deadline, (running) =>
        waitForCloud(ctx, running, sshOf(ctx, running), guestOf(ctx, running), deadline),
      );
    },
    planned: (spec) => planned(ctx, spec),
    snapshots: { ...qemu.snapshots, checkTake },
  };
}

/** Only zfsdev's own images have the agent, by which a guest gets its time and random numbers after a load. */
function checkTake(
  { instance: { name } }: SnapshotMachine,
  snapshot: string,
  memory: boolean,
): Promise<void> {
  if (!memory) return Promise.resolve();
  const command = printable(['zfsdev', 'snapshot', 'create', name, snapshot, '--live']);
  throw new Failure('unsupported', `"${name}" boots from a cloud image, whose memory can't be saved`, {
    hint: `of its disks alone, while it runs: ${command}`,
  });
}

function imageOf({ image }: Spec): CloudImageSpec {
  if (!isCloudImage(image)) throw new Error('not a machine of a cloud image');
  return image;
}

/** @throws Failure for what can be told before anything is fetched or made */
async function checkImage(ctx: Context, spec: Spec): Promise<void> {
  const { arch, firmware, location } = imageOf(spec);
  const host = hostArchitecture();
  if (arch !== undefined && arch !== host) {
    throw new Failure('unsupported', `the image ${location} is for ${arch}, and this host is ${host}`, {
      hint: `take the image for ${host}: image.location, image.digest and image.arch in the template`,
    });
  }
  if (firmware === 'uefi') await findUefi(ctx, host);
  else if (host === 'aarch64')
    throw new Failure('unsupported', 'there is no BIOS on arm64', { hint: 'image.firmware: uefi' });
  const present = await findPulled(ctx.paths.images, await wantedImage(imageOf(spec)));
  if (present) requireDiskFits(spec, present);
}

/** @throws Failure `usage` if the machine's disk can't hold the image */
function requireDiskFits({ disk }: Spec, { manifest, digest }: PulledImage): void {
  const { virtualBytes, location } = manifest;
  if (disk >= virtualBytes) return;
  const least = exactBytes(bytes(virtualBytes));
  throw new Failure('usage', `a disk of ${exactBytes(disk)} is smaller than the image, which has ${least}`, {
    detail: `${location} (${digest.slice(0, 12)})`,
    hint: `--disk ${least}, or disk: ${least} in the template`,
    data: { disk, imageBytes: virtualBytes },
  });
}

/** The disk's fully allocated bound, and a file that must be copied first; a server is asked when it is pulled. */
async function claims(ctx: Context, spec: Spec): Promise<Claim[]> {
  const { folder } = ctx.paths.instance(spec.name);
  const { fullyAllocated } = await measure(ctx, { size: spec.disk });
  const wanted = await wantedImage(imageOf(spec));
  const isThere = (await findPulled(ctx.paths.images, wanted)) !== undefined;
  const copy = isThere ? 0 : (wanted.file?.bytes ?? 0);
  return [
    { what: `the disk of ${spec.name}`, path: folder, bound: fullyAllocated, allocated: 0 },
    ...(await storageClaims(ctx, spec)),
    ...(copy > 0 ? [{ what: 'the image (pulled)', path: ctx.paths.images, bound: copy, allocated: 0 }] : []),
  ];
}

async function planned(ctx: Context, spec: Spec): Promise<string[]> {
  const paths = ctx.paths.instance(spec.name);
  const image = imageOf(spec);
  const present = await findPulled(ctx.paths.images, await wantedImage(image));
  const state: State = { ...newState('qemu'), accelerator: 'tcg' };
  const boot = await firmwareBoot(ctx, { name: spec.name, spec, state });
  const machine = machineOf(ctx, { name: spec.name, spec, state }, boot);
  const { binary } = await findQemu(ctx, hostArchitecture());
  return [
    present ? `use the image ${present.digest.slice(0, 12)}` : `pull the image ${image.location}`,
    `create ${paths.disk}, ${formatBytes(spec.disk)} virtual`,
    ...(await plannedStorage(ctx, spec)),
    `run ${printable([binary, ...planArgv(machine)])}`,
  ];
}

async function create(ctx: Context, spec: Spec, state: State, options: CreateOptions): Promise<Instance> {
  const overcommit = options.overcommit === true;
  const image = await pullImage(ctx, await wantedImage(imageOf(spec)), { overcommit });
  requireDiskFits(spec, image);
  const placed: State = { ...state, imageDigest: image.digest };
  // From here on the image counts as used.
  await writeState(ctx, spec.name, placed);
  return step(
    ctx.emit,
    'disk',
    'Creating its disk',
    async () => {
      await together([layOutDisk(ctx, spec, image.disk), layOutSeed(ctx, spec, state)]);
      const created: State = { ...placed, phase: 'created' };
      await writeState(ctx, spec.name, created);
      return { name: spec.name, spec, state: created };
    },
    () => formatBytes(spec.disk),
  );
}

/** Gives a machine new keys, and the disk by which cloud-init learns who it is. */
async function layOutSeed(ctx: Context, spec: Spec, { machineId }: State): Promise<void> {
  const paths = ctx.paths.instance(spec.name);
  const [hostKey, userKey, scripts, runner] = await together([
    newHostKey(ctx, spec.name),
    userPublicKey(ctx),
    readProvisionScripts(spec),
    readFile(join(findPackageRoot(), 'provision', 'run-scripts.sh'), 'utf8'),
  ]);
  const mounts = renderMounts(spec.storage);
  const contents = seedContents({
    name: spec.name,
    instanceId: `zfsdev-${machineId}`,
    userKey,
    hostKey,
    ...(spec.pool ? { poolConf: renderPoolConf(spec.pool) } : {}),
    ...(mounts === undefined ? {} : { mounts }),
    scripts,
    runner,
  });
  await together([
    writeFileAtomically(paths.knownHosts, `${spec.name} ${hostKey.publicKey}`),
    writeFileAtomically(paths.seed, isoImage(seedLabel, contents)),
  ]);
}
