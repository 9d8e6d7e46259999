import { formatBytes } from '../core/bytes.ts';
import { Failure } from '../core/errors.ts';
import type { Context } from '../host/context.ts';
import { ensureImage, findImage, imageLock } from '../image/build.ts';
import { flavours, recipeOf, type Flavour, type Suite } from '../image/recipe.ts';
import {
  listImages,
  planPrune,
  pruneImages,
  removeImage,
  resolveImage,
  type StoredImage,
} from '../image/store.ts';
import { table } from '../ui/table.ts';
import { imageUsers } from '../vm/images.ts';
import type { GlobalOptions, Session } from './session.ts';

export interface BuildOptions extends GlobalOptions {
  readonly flavour?: string;
  readonly suite?: string;
  readonly mirror?: string;
  readonly rebuild?: boolean;
}

/** `zfsdev image build`. */
export async function build(session: Session, options: BuildOptions): Promise<void> {
  const { ctx } = session;
  const wanted = { flavour: flavourOf(options.flavour ?? 'zfs'), suite: suiteOf(options.suite ?? 'trixie') };
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
    used: new Set((await imageUsers(ctx)).keys()),
  });
  const stored = await resolveImage(ctx.paths.images, image.digest);
  await session.answer(document(stored, []), () => text(session, stored, []));
}

/** `zfsdev image list`. */
export async function list(session: Session): Promise<void> {
  const { images } = session.ctx.paths;
  const [found, users] = await Promise.all([listImages(images), imageUsers(session.ctx)]);
  await session.answer({ images: found.map((each) => document(each, users.get(each.digest) ?? [])) }, () =>
    found.length === 0
      ? 'There are no images yet. zfsdev image build makes one; up does so by itself.\n'
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
  { title: 'ACTUAL', align: 'right' },
  { title: 'USED BY', optional: 1, flexible: true },
] as const;

function row({ paint }: Session, stored: StoredImage, users: readonly string[]): string[] {
  const digest = stored.digest.slice(0, 12);
  const usedBy = users.join(', ') || '-';
  if (stored.state === 'broken')
    return [digest, paint('bad', 'broken'), '-', stored.reason, '-', formatBytes(stored.actual), usedBy];
  const { flavour, suite, versions } = stored.image.manifest;
  return [
    digest,
    flavour,
    suite,
    versions['kernel'] ?? '-',
    versions['openzfs'] || '-',
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
  const rows: [string, string | undefined][] =
    stored.state === 'broken'
      ? [
          ['state', `${paint('bad', 'broken')}: ${stored.reason}`],
          ['folder', stored.folder],
        ]
      : [
          [
            'flavour',
            `${stored.image.manifest.flavour}, Debian ${stored.image.manifest.suite}, ${stored.image.manifest.architecture}`,
          ],
          ...Object.entries(stored.image.manifest.versions).filter(([, version]) => version !== ''),
          ['built', stored.image.manifest.createdAt],
          ['folder', stored.image.folder],
        ];
  return [
    ['digest', stored.digest],
    ['actual', formatBytes(stored.actual)],
    ['used by', users.join(', ') || 'no instance'],
    ...rows,
  ]
    .map(([key = '', value = '']) => `${key.padEnd(16)}${value}\n`)
    .join('');
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
