import type { InstanceName } from '../core/names.ts';
import type { DiskFormat } from '../qemu/img.ts';
import type { DiskOptions } from '../storage/disk-definition.ts';
import { requireInstance } from '../vm/store.ts';
import type { GlobalOptions, Session } from './session.ts';

/** Options of the commands for disks; each command has those that `cli/disk.ts` declares for it. */
export interface DiskCommandOptions extends GlobalOptions, DiskOptions {
  readonly from?: DiskFormat;
  readonly to?: DiskFormat;
  readonly overwrite?: boolean;
  readonly overcommit?: boolean;
  readonly yes?: boolean;
  readonly force?: boolean;
  readonly timeout?: string;
}

/** The arguments of a command, in their order. */
export type Words = readonly string[];

/** Under --dry-run says what would be done of a machine that is there. */
export async function planned({ ctx }: Session, machine: InstanceName, text: string): Promise<boolean> {
  if (!ctx.dryRun) return false;
  await requireInstance(ctx, machine);
  ctx.emit({ type: 'would', text });
  return true;
}
