import type { Context } from '../host/context.ts';
import { compareFile, renewRecord, type FileRecord } from './file-record.ts';
import { actualSize } from '../host/files.ts';
import { writeManifest, type WarmManifest } from './warm-store.ts';

/** A warm state that can't be forked from: its files are damaged. Nothing of it has run. */
export class WarmDamaged extends Error {
  override readonly name = 'WarmDamaged';
}

const parts = { memory: 'memory', devices: 'device state', disk: 'disk' } as const;

/**
 * Looks whether the files of a warm state are those that were saved. One that was copied here (from a CI cache, say) is
 * read in full once and known from then on.
 * @throws WarmDamaged
 */
export async function checkWarm(ctx: Context, warm: WarmManifest): Promise<void> {
  const paths = ctx.paths.warmState(warm.key);
  const moved = await Promise.all(
    Object.entries(parts).map(async ([part, title]) => {
      const name = part as keyof typeof parts;
      const comparison = await compareFile(ctx, paths[name], warm[name]);
      if (!comparison.same) throw new WarmDamaged(`its ${title}: ${comparison.reason}`);
      return comparison.moved;
    }),
  );
  if (moved.includes(true)) await settleIn(ctx, warm);
}

/** Gives back what an archiver wrote out as zeros, and records the files as they lie here now. */
async function settleIn(ctx: Context, warm: WarmManifest): Promise<void> {
  const paths = ctx.paths.warmState(warm.key);
  const worth = warm.memory.data.reduce((sum, [, length]) => sum + length, 0);
  if (process.platform === 'linux' && actualSize(paths.memory) > worth * 1.1) {
    // Only a matter of space: where the file system can't, all of it stays allocated.
    await ctx
      .run(['fallocate', '--dig-holes', paths.memory], {
        effect: 'write',
        deadline: 60_000,
        accept: [1],
        signal: ctx.signal,
      })
      .catch(() => undefined);
  }
  const renewed = await Promise.all(
    Object.keys(parts).map(async (part): Promise<[string, FileRecord]> => {
      const name = part as keyof typeof parts;
      return [name, await renewRecord(paths[name], warm[name])];
    }),
  );
  await writeManifest(paths.folder, { ...warm, ...Object.fromEntries(renewed) });
}
