import { realpath, rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { Claim } from '../budget/admission.ts';
import { formatBytes } from '../core/bytes.ts';
import { Failure } from '../core/errors.ts';
import { step } from '../core/events.ts';
import type { InstanceName } from '../core/names.ts';
import type { Channel, Streams } from '../guest/channel.ts';
import { sshChannel } from '../guest/ssh.ts';
import type { Context } from '../host/context.ts';
import { exists, makePrivateFolder, readIfExists, writeFileAtomically } from '../host/files.ts';
import { checkSocketPath } from '../host/paths.ts';
import { printable } from '../host/run.ts';
import { findImage } from '../image/build.ts';
import { recipeOf } from '../image/recipe.ts';
import { limactl, requireLimactl } from '../lima/limactl.ts';
import { refuseStorage } from '../lima/storage.ts';
import type { LimaVersion } from '../lima/version.ts';
import { isCloudImage, type Spec } from '../template/spec.ts';
import type { Driver, StopOptions } from './driver.ts';
import type { Instance } from './instance.ts';
import { limaDiskBound, limaFolder, limaMarker, lookAtLima } from './lima-look.ts';
import { limaSnapshots } from './lima-snapshot.ts';
import { limaEnvironment, startLima } from './lima-start.ts';
import { parseState, type State } from './state.ts';
import { writeState } from './store.ts';

/** Lima appends 16 digits to the path of a socket while it makes it. */
const socketName = 'ssh.sock.0123456789abcdef';

/**
 * Runs instances by limactl, in a home of zfsdev's own: what the user's default.yaml and override.yaml would add to every
 * machine has no way in, and no instance that the user made is ever in reach.
 */
export function limaDriver(ctx: Context): Driver {
  let asked: Promise<LimaVersion> | undefined;
  const version = (): Promise<LimaVersion> => (asked ??= requireLimactl(ctx, ctx.paths.lima));
  return {
    check: async (spec) => {
      refuseStorage(spec);
      checkSockets(ctx, spec);
      await version();
    },
    claims: (spec) => Promise.resolve([claim(ctx, spec)]),
    create: async (spec, state) => create(ctx, spec, state, await version()),
    start: (instance, undo, deadline) =>
      startLima(ctx, instance, channelOf(ctx, instance, { sudo: true }), undo, deadline),
    stop: (instance, options) => stop(ctx, instance, options),
    remove: (name) => remove(ctx, name),
    channel: (instance, streams) => channelOf(ctx, instance, { streams }),
    protect: (instance, on) => protect(ctx, instance, on),
    snapshots: limaSnapshots(ctx, (instance) => channelOf(ctx, instance)),
    planned: (spec) =>
      Promise.resolve([
        `write ${ctx.paths.instance(spec.name).lima}`,
        `run LIMA_HOME=${ctx.paths.lima} limactl create --name=${spec.name} and start`,
      ]),
  };
}

function checkSockets(ctx: Context, spec: Spec): void {
  const paths = ctx.paths.instance(spec.name);
  checkSocketPath(join(ctx.paths.lima, spec.name, socketName));
  // The longer of the two that `channelOf` has; ssh appends as much.
  checkSocketPath(`${paths.control}.sudo.0123456789abcdef`);
}

function claim(ctx: Context, { name, disk }: Spec): Claim {
  return { what: `the disk of ${name}`, path: ctx.paths.lima, bound: limaDiskBound(disk), allocated: 0 };
}

async function create(ctx: Context, spec: Spec, state: State, limaVersion: LimaVersion): Promise<Instance> {
  const { lima: file } = ctx.paths.instance(spec.name);
  await makePrivateFolder(ctx.paths.lima);
  const home = await realpath(ctx.paths.lima);
  if (exists(join(home, spec.name))) {
    throw new Failure('already-exists', `Lima has an instance "${spec.name}" that zfsdev did not make`, {
      hint: `--name gives this one another name; LIMA_HOME=${home} limactl delete ${spec.name} removes that one`,
    });
  }
  // From here on `remove` knows that there may be something of Lima's, and where.
  const placed: State = { ...state, limaHome: home };
  await writeState(ctx, spec.name, placed);
  const image = await localImage(ctx, spec);
  const extras = { marker: limaMarker(placed), ...(image === undefined ? {} : { image }) };
  // Read only where a machine is made: looking at machines needs no YAML.
  const { renderLima } = await import('../lima/yaml.ts');
  await writeFileAtomically(file, await renderLima(spec, { limaVersion, extras }));
  const env = await limaEnvironment(ctx);
  await step(
    ctx.emit,
    'disk',
    'Creating it with Lima',
    (progress) =>
      limactl(ctx, home, ['create', `--name=${spec.name}`, file], {
        effect: 'write',
        // An image of hundreds of megabytes may have to come first.
        deadline: 3_600_000,
        signal: ctx.signal,
        env,
        onMessage: progress,
      }),
    () => formatBytes(spec.disk),
  );
  const created: State = { ...placed, phase: 'created' };
  await writeState(ctx, spec.name, created);
  return { name: spec.name, spec, state: created };
}

/** The cloud image that was built on this host, the one with the wanted tools first: Lima then downloads nothing. */
async function localImage(ctx: Context, { image, buildTools }: Spec): Promise<string | undefined> {
  if (isCloudImage(image)) return undefined;
  const { suite } = image;
  try {
    for (const tools of buildTools ? [true, false] : [false]) {
      const found = await findImage(ctx, await recipeOf({ flavour: 'cloud', suite, tools }));
      if (found) return found.disk;
    }
    return undefined;
  } catch (error) {
    if (error instanceof Failure && error.reason === 'unsupported') return undefined;
    throw error;
  }
}

async function stop(ctx: Context, instance: Instance, { force, deadline }: StopOptions): Promise<void> {
  const home = instance.state.limaHome ?? ctx.paths.lima;
  await channelOf(ctx, instance).close();
  try {
    await limactl(ctx, home, ['stop', ...(force ? ['--force'] : []), instance.name], {
      effect: 'write',
      deadline: force ? 60_000 : deadline.left(),
      signal: ctx.signal,
    });
  } catch (error) {
    if (force || !(error instanceof Failure) || (error.reason !== 'process' && error.reason !== 'deadline'))
      throw error;
    throw new Failure(error.reason, error.message, {
      ...(error.detail === undefined ? {} : { detail: error.detail }),
      hint: `zfsdev stop --force ${instance.name} ends it all the same, as a power cut would`,
      cause: error,
    });
  }
}

async function protect(ctx: Context, { name, state }: Instance, on: boolean): Promise<void> {
  // What somebody else made is not changed.
  if (state.adopted) return;
  const home = state.limaHome ?? ctx.paths.lima;
  await limactl(ctx, home, [on ? 'protect' : 'unprotect', name], { effect: 'write', deadline: 60_000 });
}

async function remove(ctx: Context, name: InstanceName): Promise<void> {
  const paths = ctx.paths.instance(name);
  const state = readState(ctx, name);
  if (state?.limaHome !== undefined && !state.adopted) await removeFromLima(ctx, name, state);
  await rm(paths.control, { force: true });
  await rm(paths.folder, { recursive: true, force: true });
}

/** Takes the machine itself away, and never one that somebody else made under its name. */
async function removeFromLima(ctx: Context, name: InstanceName, state: State): Promise<void> {
  const home = state.limaHome ?? ctx.paths.lima;
  const { folder, lost } = await lookAtLima(ctx, { name, state });
  if (lost === 'foreign') return;
  if (lost === undefined) {
    if (exists(join(folder, 'protected'))) {
      throw new Failure('protected', `"${name}" is protected in Lima`, {
        hint: `LIMA_HOME=${printable([home])} limactl unprotect ${name}`,
      });
    }
    try {
      await limactl(ctx, home, ['delete', '--force', name], { effect: 'write', deadline: 120_000 });
    } catch (error) {
      // Up to 2.0 it deletes the machine, and then fails because of a folder beside it that is none.
      if (exists(folder)) throw error;
    }
    return;
  }
  // Without a lima.yaml it is what an interrupted creation left, which limactl itself can't delete.
  if (state.phase === 'creating') await rm(folder, { recursive: true, force: true });
}

/** The state, as far as it can be read: a machine is removed however damaged. */
function readState(ctx: Context, name: InstanceName): State | undefined {
  const text = readIfExists(ctx.paths.instance(name).state);
  try {
    return text === undefined ? undefined : parseState(text);
  } catch (error) {
    if (error instanceof Failure) return undefined;
    throw error;
  }
}

/**
 * The way in, by the ssh configuration that Lima writes at each start: as root, whom the provisioning lets in; or, before
 * that is through and in machines that zfsdev did not make, as Lima's own user with sudo.
 */
function channelOf(
  ctx: Context,
  instance: Instance,
  {
    sudo = instance.state.adopted === true,
    streams,
  }: { readonly sudo?: boolean; readonly streams?: Streams | undefined } = {},
): Channel {
  const { control } = ctx.paths.instance(instance.name);
  return sshChannel(ctx, {
    name: instance.name,
    ...(sudo ? { sudo: true } : { user: 'root' }),
    controlSocket: sudo ? `${control}.sudo` : control,
    way: { configFile: join(limaFolder(ctx, instance), 'ssh.config'), host: `lima-${instance.name}` },
    streams,
  });
}
