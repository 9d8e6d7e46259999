import { bytes, exactBytes, formatBytes } from '../core/bytes.ts';
import { parseName } from '../core/names.ts';
import { changeDisk } from '../storage/disk-change.ts';
import { convertFile } from '../storage/disk-convert.ts';
import { resizeDisk } from '../storage/disk-resize.ts';
import { readStorageSize } from '../template/storage-values.ts';
import { planned, type DiskCommandOptions, type Words } from './disk-options.ts';
import type { Session } from './session.ts';

/** `zfsdev disk resize`. */
export async function resize(
  session: Session,
  [instance = '', name = '', text = '']: Words,
  options: DiskCommandOptions,
): Promise<void> {
  const machine = parseName(instance);
  const size = readStorageSize(text);
  if (await planned(session, machine, `grow the disk "${name}" of ${machine} to ${exactBytes(size)}`)) return;
  const resized = await resizeDisk(session.ctx, machine, name, size, options.overcommit === true);
  const { before, after, live, steps } = resized;
  await session.answer(
    { instance: machine, disk: name, beforeBytes: before, afterBytes: after, live, steps },
    () => {
      const line = `"${name}" of ${session.paint('good', machine)} had ${exactBytes(bytes(before))}, has ${exactBytes(bytes(after))}\n`;
      return line + (after === before ? '' : steps.map((step) => `${step}\n`).join(''));
    },
  );
}

/** `zfsdev disk change`. */
export async function change(
  session: Session,
  [instance = '', name = '']: Words,
  options: DiskCommandOptions,
): Promise<void> {
  const machine = parseName(instance);
  const type = options.type === 'raw' ? 'raw' : 'qcow2';
  if (await planned(session, machine, `write the disk "${name}" of ${machine} anew as ${type}`)) return;
  const done = await changeDisk(session.ctx, machine, name, type, options.overcommit === true);
  const { path, changed, before, after } = done;
  await session.answer(
    { instance: machine, disk: name, type, path, changed, beforeBytes: before, afterBytes: after },
    () => {
      const sizes = changed ? `: took ${formatBytes(before)}, takes ${formatBytes(after)}` : ' already';
      return `"${name}" of ${session.paint('good', machine)} is ${type}${sizes}\n`;
    },
  );
}

/** `zfsdev disk convert`. */
export async function convert(
  session: Session,
  [source = '', target = '']: Words,
  options: DiskCommandOptions,
): Promise<void> {
  if (session.ctx.dryRun) return session.ctx.emit({ type: 'would', text: `write ${source} as ${target}` });
  const { path, format, virtual, actual } = await convertFile(session.ctx, source, target, {
    overwrite: options.overwrite === true,
    overcommit: options.overcommit === true,
    ...(options.from === undefined ? {} : { from: options.from }),
    ...(options.to === undefined ? {} : { to: options.to }),
  });
  await session.answer(
    { path, format, virtualBytes: virtual, actualBytes: actual },
    () =>
      `${session.paint('good', path)} is ${format}: ${formatBytes(virtual)} virtual, ${formatBytes(actual)} on the host\n`,
  );
}
