import { resolve } from 'node:path';
import protobuf from 'protobufjs';
import { expect, it } from 'vitest';
import { contract } from '../../../src/zvold/contract.ts';

it('what zvold carries is what proto/ says (npm run generate)', async () => {
  const root = new protobuf.Root();
  root.resolvePath = (_, target) =>
    target.startsWith('google/') ? target : resolve(import.meta.dirname, '../../../proto', target);
  for (const file of ['mvirt/zfs/zfs.proto', 'zfsdev/zvol/v1/zvol.proto']) await root.load(file);
  expect(contract).toEqual(JSON.parse(JSON.stringify(root.toJSON())));
});

it('has the numbers of the fields that clients of mvirt-zfs have', () => {
  const messages = contract.nested.mvirt.nested.zfs.nested;
  // In the order of the published contract, from 1.
  const published: Readonly<Record<string, readonly string[]>> = {
    PoolStats: ['name', 'totalBytes', 'availableBytes', 'usedBytes', 'provisionedBytes', 'compressionRatio'],
    Volume: [
      ...['id', 'name', 'path', 'volsizeBytes', 'usedBytes', 'volblocksize'],
      ...['compressionRatio', 'createdAt', 'snapshots'],
    ],
    Snapshot: ['id', 'name', 'fullName', 'usedBytes', 'createdAt'],
    Template: ['id', 'name', 'snapshotPath', 'sourceVolume', 'sizeBytes', 'createdAt', 'cloneCount'],
    ImportJob: [
      ...['id', 'templateName', 'source', 'state', 'bytesWritten', 'totalBytes', 'error', 'template'],
      ...['createdAt', 'completedAt'],
    ],
    CreateVolumeRequest: ['name', 'sizeBytes', 'volblocksize', 'id'],
    CloneFromTemplateRequest: ['templateName', 'newVolumeName', 'sizeBytes', 'id'],
    ImportTemplateRequest: ['name', 'source', 'sizeBytes'],
  };
  for (const [message, names] of Object.entries(published)) {
    const { fields } = messages[message as keyof typeof messages] as {
      fields: Record<string, { id: number }>;
    };
    const byNumber = Object.entries(fields).sort(([, a], [, b]) => a.id - b.id);
    expect(
      byNumber.map(([name]) => name),
      message,
    ).toEqual(names);
    expect(
      byNumber.map(([, { id }]) => id),
      message,
    ).toEqual(names.map((_, index) => index + 1));
  }
});
