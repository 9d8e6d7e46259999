import { basename } from 'node:path';
import { formatBytes } from '../core/bytes.ts';
import { Failure } from '../core/errors.ts';
import type { Context } from '../host/context.ts';
import { printable } from '../host/run.ts';
import { ensureImage, findImage, imageLock } from '../image/build.ts';
import { findPulled } from '../image/keep.ts';
import type { PulledImage } from '../image/pulled.ts';
import { flavours, recipeOf, type Flavour, type Suite } from '../image/recipe.ts';
import {
  listImages,
  planPrune,
  pruneImages,
  removeImage,
  resolveImage,
  type Image,
  type StoredImage,
} from '../image/store.ts';
import { absoluteLocation, isUrl, readDigest, readLocation } from '../template/image.ts';
import { table } from '../ui/table.ts';
import { imageUsers } from '../vm/images.ts';
import { pullImage, wantedImage } from '../vm/pull.ts';
import type { GlobalOptions, Session } from './session.ts';

export interface BuildOptions extends GlobalOptions {
  readonly flavour?: string;
  readonly tools?: boolean;
  readonly suite?: string;
  readonly mirror?: string;
  readonly rebuild?: boolean;
}

/** `zfsdev image build`. */
export async function build(session: Session, options: BuildOptions): Promise<void> {
  const { ctx } = session;
  const wanted = {
    flavour: flavourOf(options.flavour ?? 'zfs'),
    suite: suiteOf(options.suite ?? 'trixie'),
    tools: options.tools === true,
  };
  const recipe = await recipeOf(wanted);
  if (ctx.dryRun) {
    const needed = options.rebuild || !(await findImage(ctx, recipe));
    ctx.emit({
      type: 'would',
      text: needed
        ? `build the image ${recipe.digest}`
        : `build nothing: the image ${recipe.digest} is there`,
    });
    return;
  }
  const image = await ensureImage(ctx, recipe, {
    rebuild: options.rebuild === true,
    mirror: options.mirror,
    users: async (digest) => (await imageUsers(ctx)).get(digest) ?? [],
  });
  const stored = await resolveImage(ctx.paths.images, image.digest);
  await session.answer(document(stored, []), () => text(session, stored, []));
}

export interface PullCommandOptions extends GlobalOptions {
  readonly digest?: string;
  readonly overcommit?: boolean;
}

/** `zfsdev image pull`: an image of somebody else's, verified and kept among one's own. */
export async function pull(session: Session, place: string, options: PullCommandOptions): Promise<void> {
  const { ctx } = session;
  const location = absoluteLocation(
    asUsage('the image', () => readLocation(place)),
    process.cwd(),
  );
  const digest =
    options.digest === undefined ? undefined : asUsage('--digest', () => readDigest(options.digest));
  if (digest === undefined && isUrl(location)) {
    throw new Failure('usage', 'an image from the network needs --digest', {
      hint: `zfsdev image pull ${printable([location])} --digest sha256:...\nthe SHA256SUMS or SHA512SUMS beside the image has it`,
    });
  }
  const wanted = await wantedImage({ location, digest });
  if (ctx.dryRun) {
    const present = await findPulled(ctx.paths.images, wanted);
    const text = present ? `pull nothing: the image ${present.digest} is there` : `pull ${location}`;
    return ctx.emit({ type: 'would', text });
  }
  const image = await pullImage(ctx, wanted, { overcommit: options.overcommit === true });
  const stored = await resolveImage(ctx.paths.images, image.digest);
  const users = (await imageUsers(ctx)).get(image.digest) ?? [];
  await session.answer(document(stored, users), () => text(session, stored, users));
}

function asUsage<T>(what: string, read: () => T): T {
  try {
    return read();
  } catch (error) {
    if (!(error instanceof Failure)) throw error;
    throw new Failure('usage', `${what}: ${error.message}`, {
      ...(error.hint === undefined ? {} : { hint: error.hint }),
      cause: error,
    });
  }
}

/** `zfsdev image list`. */
export async function list(session: Session): Promise<void> {
  const { images } = session.ctx.paths;
  const [found, users] = await Promise.all([listImages(images), imageUsers(session.ctx)]);
  await session.answer({ images: found.map((each) => document(each, users.get(each.digest) ?? [])) }, () =>
    found.length === 0
      ? 'There are no images yet. zfsdev image build and zfsdev image pull bring one; up does so by itself.\n'
      : `${table(
          columns,
          found.map((each) => row(session, each, users.get(each.digest) ?? [])),
          session.width,
        )}\n`,
  );
}

/** `zfsdev image inspect`. */
export async function inspect(session: Session, prefix: string): Promise<void> {
  const stored = await resolveImage(session.ctx.paths.images, prefix);
  const users = (await imageUsers(session.ctx)).get(stored.digest) ?? [];
  await session.answer(document(stored, users), () => text(session, stored, users));
}

/** `zfsdev image remove`. */
export async function remove(session: Session, prefix: string): Promise<void> {
  const { ctx } = session;
  const stored = await resolveImage(ctx.paths.images, prefix);
  if (ctx.dryRun) return ctx.emit({ type: 'would', text: `remove the image ${stored.digest}` });
  await whileNothingIsBuilt(ctx, async () => {
    const users = await imageUsers(ctx);
    refuseIfUsed(stored, users.get(stored.digest) ?? []);
    await removeImage(ctx.paths.images, stored, new Set(users.keys()));
  });
  await session.answer(
    { removed: [stored.digest], freedBytes: stored.actual },
    () => `removed ${stored.digest.slice(0, 12)}, ${formatBytes(stored.actual)} freed\n`,
  );
}

/** `zfsdev image prune`. */
export async function prune(session: Session): Promise<void> {
  const { ctx } = session;
  const { images } = ctx.paths;
  const plan = await whileNothingIsBuilt(ctx, async () => {
    const used = new Set((await imageUsers(ctx)).keys());
    const planned = await planPrune(images, used);
    if (!ctx.dryRun) await pruneImages(images, planned, used);
    return planned;
  });
  const removed = [...plan.images.map(({ digest }) => digest), ...plan.files];
  if (ctx.dryRun) {
    for (const what of removed) ctx.emit({ type: 'would', text: `remove ${what}` });
    return;
  }
  await session.answer({ removed, freedBytes: plan.actual }, () => `${formatBytes(plan.actual)} freed\n`);
}

async function whileNothingIsBuilt<T>(ctx: Context, work: () => Promise<T>): Promise<T> {
  const held = await imageLock(ctx);
  try {
    return await work();
  } finally {
    await held.release();
  }
}

function refuseIfUsed(stored: StoredImage, users: readonly string[]): void {
  if (users.length === 0) return;
  throw new Failure(
    'wrong-state',
    `${users.join(', ')} ${users.length === 1 ? 'stands' : 'stand'} on the image ${stored.digest.slice(0, 12)}`,
    {
      hint: 'zfsdev delete --force NAME removes an instance, zfsdev warm prune the warm states nobody uses',
      data: { digest: stored.digest, users },
    },
  );
}

const columns = [
  { title: 'DIGEST' },
  { title: 'FLAVOUR' },
  { title: 'SUITE' },
  { title: 'KERNEL', optional: 3, flexible: true },
  { title: 'OPENZFS', optional: 2, flexible: true },
  { title: 'FROM', optional: 4, flexible: true },
  { title: 'ACTUAL', align: 'right' },
  { title: 'USED BY', optional: 1, flexible: true },
] as const;

function row({ paint }: Session, stored: StoredImage, users: readonly string[]): string[] {
  const digest = stored.digest.slice(0, 12);
  const usedBy = users.join(', ') || '-';
  if (stored.state === 'broken')
    return [digest, paint('bad', 'broken'), '-', stored.reason, '-', '-', formatBytes(stored.actual), usedBy];
  if (stored.image.kind === 'pulled') {
    const from = basename(stored.image.manifest.location);
    return [digest, 'pulled', '-', '-', '-', from, formatBytes(stored.actual), usedBy];
  }
  const { suite, versions } = stored.image.manifest;
  return [
    digest,
    flavourWord(stored.image.manifest),
    suite,
    versions['kernel'] ?? '-',
    versions['openzfs'] || '-',
    'built here',
    formatBytes(stored.actual),
    usedBy,
  ];
}

function document(stored: StoredImage, usedBy: readonly string[]): object {
  const common = { digest: stored.digest, state: stored.state, actualBytes: stored.actual, usedBy };
  return stored.state === 'whole'
    ? { ...common, folder: stored.image.folder, ...stored.image.manifest }
    : { ...common, folder: stored.folder, reason: stored.reason };
}

function text({ paint }: Session, stored: StoredImage, users: readonly string[]): string {
  const rows: [string, string][] =
    stored.state === 'broken'
      ? [
          ['state', `${paint('bad', 'broken')}: ${stored.reason}`],
          ['folder', stored.folder],
        ]
      : stored.image.kind === 'pulled'
        ? pulledRows(stored.image)
        : builtRows(stored.image);
  return [
    ['digest', stored.digest],
    ['actual', formatBytes(stored.actual)],
    ['used by', users.join(', ') || 'no instance'],
    ...rows,
  ]
    .map(([key = '', value = '']) => `${key.padEnd(16)}${value}\n`)
    .join('');
}

function builtRows({ folder, manifest }: Image): [string, string][] {
  const { suite, architecture, versions, createdAt } = manifest;
  return [
    ['flavour', `${flavourWord(manifest)}, Debian ${suite}, ${architecture}`],
    ...Object.entries(versions).filter(([, version]) => version !== ''),
    ['built', createdAt],
    ['folder', folder],
  ];
}

/** An image with the tools of a kernel build says so. */
function flavourWord({ flavour, tools }: Image['manifest']): string {
  return tools ? `${flavour}+tools` : flavour;
}

function pulledRows({ folder, manifest }: PulledImage): [string, string][] {
  const { location, sha512, virtualBytes, createdAt } = manifest;
  return [
    ['from', location],
    ...(sha512 === undefined ? [] : [['sha512', sha512] as [string, string]]),
    ['virtual', formatBytes(virtualBytes)],
    ['pulled', createdAt],
    ['folder', folder],
  ];
}

function flavourOf(text: string): Flavour {
  const found = flavours.find((flavour) => flavour === text);
  if (found) return found;
  throw new Failure('usage', `there is no flavour "${text}"`, {
    hint: `flavours are ${flavours.join(', ')}`,
  });
}

function suiteOf(text: string): Suite {
  if (text === 'trixie' || text === 'sid') return text;
  throw new Failure('usage', `there is no suite "${text}"`, { hint: 'suites are trixie and sid' });
}
