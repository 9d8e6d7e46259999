import { formatBytes } from '../core/bytes.ts';
import type { Column } from '../ui/table.ts';
import type { Import, Snapshot, Template, Timestamp, Volume } from '../zvol/messages.ts';

export const dateOf = ({ seconds }: Timestamp): string =>
  new Date(seconds * 1000).toISOString().slice(0, 19).replace('T', ' ');

export const volumeColumns: readonly Column[] = [
  { title: 'NAME', flexible: true },
  { title: 'SIZE', align: 'right' },
  { title: 'USED', align: 'right' },
  { title: 'BLOCKS', align: 'right', optional: 2 },
  { title: 'RATIO', align: 'right', optional: 3 },
  { title: 'SNAPSHOTS', align: 'right', optional: 1 },
  { title: 'TEMPLATE', optional: 4 },
  { title: 'CREATED', optional: 5 },
];

export function volumeRow(volume: Volume): string[] {
  return [
    volume.name,
    formatBytes(volume.sizeBytes),
    formatBytes(volume.usedBytes),
    formatBytes(volume.volblocksize),
    `${volume.compressionRatio.toFixed(2)}x`,
    String(volume.snapshots.length),
    volume.template || '-',
    dateOf(volume.createdAt),
  ];
}

export function describeVolume(volume: Volume): string {
  const lines: [string, string][] = [
    ['name', volume.name],
    ['id', volume.id],
    ['device', volume.path],
    ['size', `${formatBytes(volume.sizeBytes)} in blocks of ${formatBytes(volume.volblocksize)}`],
    [
      'used',
      `${formatBytes(volume.usedBytes)}, ${formatBytes(volume.referencedBytes)} referenced, ${formatBytes(volume.reservedBytes)} reserved`,
    ],
    ['ratio', `${volume.compressionRatio.toFixed(2)} x`],
    ['template', volume.template || '-'],
    ['created', dateOf(volume.createdAt)],
    ['snapshots', volume.snapshots.map(({ name }) => name).join(', ') || '-'],
  ];
  return lines.map(([key, value]) => `${key.padEnd(10)} ${value}`).join('\n');
}

export const snapshotColumns: readonly Column[] = [
  { title: 'NAME', flexible: true },
  { title: 'USED', align: 'right' },
  { title: 'REFERENCED', align: 'right', optional: 1 },
  { title: 'HOLDS', align: 'right', optional: 2 },
  { title: 'CLONES', optional: 3 },
  { title: 'CREATED', optional: 4 },
];

export function snapshotRow(snapshot: Snapshot): string[] {
  const { name, usedBytes, referencedBytes, holds, clones, createdAt } = snapshot;
  return [
    name,
    formatBytes(usedBytes),
    formatBytes(referencedBytes),
    String(holds),
    clones.join(', ') || '-',
    dateOf(createdAt),
  ];
}

export const templateColumns: readonly Column[] = [
  { title: 'NAME', flexible: true },
  { title: 'SIZE', align: 'right' },
  { title: 'REFERENCED', align: 'right', optional: 1 },
  { title: 'OF', optional: 2 },
  { title: 'CLONES' },
];

export function templateRow({ name, sizeBytes, referencedBytes, sourceVolume, clones }: Template): string[] {
  return [
    name,
    formatBytes(sizeBytes),
    formatBytes(referencedBytes),
    sourceVolume || '-',
    clones.join(', ') || '-',
  ];
}

export const importColumns: readonly Column[] = [
  { title: 'ID', optional: 2 },
  { title: 'NAME', flexible: true },
  { title: 'AS' },
  { title: 'STATE' },
  { title: 'DONE', align: 'right' },
  { title: 'SOURCE', optional: 1 },
];

export function importRow(job: Import): string[] {
  const as = job.target === 'IMPORT_TARGET_VOLUME' ? 'volume' : 'template';
  return [job.id, job.name, as, stateOf(job), progressOf(job), job.source];
}

export const stateOf = ({ state }: Import): string => state.replace('IMPORT_STATE_', '').toLowerCase();

export function progressOf({ doneBytes, totalBytes }: Import): string {
  return totalBytes > 0 ? `${formatBytes(doneBytes)} of ${formatBytes(totalBytes)}` : formatBytes(doneBytes);
}
