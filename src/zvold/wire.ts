import type { Change, Told } from './hub.ts';
import { ownFolder } from './inventory.ts';
import type { ImportJob, ImportState, ImportTarget } from './jobs.ts';
import type { Pool, Snapshot, Template, Volume } from './model.ts';

/** How zfsdev.zvol.v1 has what zvold knows. Absent messages are null, as the library that sends them has it. */

const fromMilliseconds = (time: number): object => ({
  seconds: Math.floor(time / 1000),
  nanos: (time % 1000) * 1_000_000,
});
const fromSeconds = (time: number): object => ({ seconds: time, nanos: 0 });

export function volumeMessage(volume: Volume): object {
  return {
    id: volume.id,
    name: volume.name,
    path: volume.path,
    sizeBytes: volume.size,
    usedBytes: volume.used,
    referencedBytes: volume.referenced,
    reservedBytes: volume.reserved,
    volblocksize: volume.blockSize,
    compressionRatio: volume.compressionRatio,
    createdAt: fromSeconds(volume.created),
    template: volume.template,
    snapshots: volume.snapshots.map(snapshotMessage),
  };
}

export function snapshotMessage(snapshot: Snapshot): object {
  return {
    id: snapshot.id,
    name: snapshot.name,
    fullName: snapshot.fullName,
    usedBytes: snapshot.used,
    referencedBytes: snapshot.referenced,
    createdAt: fromSeconds(snapshot.created),
    holds: snapshot.holds,
    // Those of exports are there for a moment, and no volumes.
    clones: snapshot.clones
      .map((dataset) => dataset.slice(dataset.indexOf('/') + 1))
      .filter((name) => !name.startsWith(`${ownFolder}/`)),
  };
}

export function templateMessage(template: Template): object {
  return {
    id: template.id,
    name: template.name,
    snapshot: template.snapshot.fullName,
    sourceVolume: template.sourceVolume,
    sizeBytes: template.size,
    referencedBytes: template.snapshot.referenced,
    createdAt: fromSeconds(template.snapshot.created),
    clones: template.clones,
  };
}

export function poolMessage(pool: Pool): object {
  return {
    name: pool.name,
    sizeBytes: pool.size,
    freeBytes: pool.free,
    allocatedBytes: pool.allocated,
    provisionedBytes: pool.provisioned,
    compressionRatio: pool.compressionRatio,
    health: pool.health,
    fragmentationPercent: pool.fragmentation,
  };
}

const states: Readonly<Record<ImportState, string>> = {
  pending: 'IMPORT_STATE_PENDING',
  downloading: 'IMPORT_STATE_DOWNLOADING',
  converting: 'IMPORT_STATE_CONVERTING',
  writing: 'IMPORT_STATE_WRITING',
  completed: 'IMPORT_STATE_COMPLETED',
  failed: 'IMPORT_STATE_FAILED',
  cancelled: 'IMPORT_STATE_CANCELLED',
};

const targets: Readonly<Record<ImportTarget, string>> = {
  template: 'IMPORT_TARGET_TEMPLATE',
  volume: 'IMPORT_TARGET_VOLUME',
};

/** What an import made, once it has. */
export interface Made {
  readonly volume?: Volume | undefined;
  readonly template?: Template | undefined;
}

export function importMessage(job: ImportJob, { volume, template }: Made = {}): object {
  return {
    id: job.id,
    name: job.name,
    target: targets[job.target],
    source: job.source,
    state: states[job.state],
    doneBytes: job.done,
    totalBytes: job.total,
    error: job.error,
    createdAt: fromMilliseconds(job.created),
    completedAt: job.completed === undefined ? null : fromMilliseconds(job.completed),
    volume: volume ? volumeMessage(volume) : null,
    template: template ? templateMessage(template) : null,
  };
}

export function watchMessage(told: Told): object {
  return { time: fromMilliseconds(told.time), ...eventOf(told) };
}

function eventOf(told: Change | { readonly kind: 'synced' | 'resync' }): object {
  switch (told.kind) {
    case 'synced':
      return { synced: true };
    case 'resync':
      return { resync: true };
    case 'volume':
      return { volume: volumeMessage(told.volume) };
    case 'volume-deleted':
      return { volumeDeleted: told.id };
    case 'template':
      return { template: templateMessage(told.template) };
    case 'template-deleted':
      return { templateDeleted: told.id };
    case 'import':
      return { import: importMessage(told.job) };
  }
}
