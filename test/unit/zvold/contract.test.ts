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

/** The published contract of mvirt-zfs: each message with its fields in their order, from 1. */
const messages: Readonly<Record<string, string>> = {
  GetVersionRequest: '',
  VersionInfo: 'string version',
  GetPoolStatsRequest: '',
  PoolStats:
    'string name; uint64 total_bytes; uint64 available_bytes; uint64 used_bytes; uint64 provisioned_bytes; double compression_ratio',
  Volume:
    'string id; string name; string path; uint64 volsize_bytes; uint64 used_bytes; uint64 volblocksize; double compression_ratio; string created_at; repeated Snapshot snapshots',
  Snapshot: 'string id; string name; string full_name; uint64 used_bytes; string created_at',
  Template:
    'string id; string name; string snapshot_path; string source_volume; uint64 size_bytes; string created_at; uint32 clone_count',
  ImportJob:
    'string id; string template_name; string source; ImportJobState state; uint64 bytes_written; uint64 total_bytes; optional string error; optional Template template; string created_at; optional string completed_at',
  CreateVolumeRequest: 'string name; uint64 size_bytes; optional uint32 volblocksize; string id',
  ListVolumesRequest: '',
  ListVolumesResponse: 'repeated Volume volumes',
  GetVolumeRequest: 'string name',
  DeleteVolumeRequest: 'string name',
  DeleteVolumeResponse: 'bool deleted',
  ResizeVolumeRequest: 'string name; uint64 new_size_bytes',
  CreateSnapshotRequest: 'string volume_name; string snapshot_name',
  ListSnapshotsRequest: 'string volume_name',
  ListSnapshotsResponse: 'repeated Snapshot snapshots',
  DeleteSnapshotRequest: 'string volume_name; string snapshot_name',
  DeleteSnapshotResponse: 'bool deleted',
  RollbackSnapshotRequest: 'string volume_name; string snapshot_name',
  ImportTemplateRequest: 'string name; string source; optional uint64 size_bytes',
  GetImportJobRequest: 'string id',
  ListImportJobsRequest: 'bool include_completed',
  ListImportJobsResponse: 'repeated ImportJob jobs',
  CancelImportJobRequest: 'string id',
  CancelImportJobResponse: 'bool cancelled',
  ListTemplatesRequest: '',
  ListTemplatesResponse: 'repeated Template templates',
  DeleteTemplateRequest: 'string name',
  DeleteTemplateResponse: 'bool deleted',
  CloneFromTemplateRequest:
    'string template_name; string new_volume_name; optional uint64 size_bytes; string id',
  PromoteSnapshotRequest: 'string volume_name; string snapshot_name; string template_name',
  WatchVolumesRequest: '',
  VolumeEvent: 'string volume_id; int64 timestamp; optional Volume volume',
  WatchTemplatesRequest: '',
  TemplateEvent:
    'string template_id; int64 timestamp; optional Template template; optional ImportJob import_job',
};

/** Its calls, with what they take and give. */
const calls: Readonly<Record<string, string>> = {
  GetVersion: 'GetVersionRequest -> VersionInfo',
  GetPoolStats: 'GetPoolStatsRequest -> PoolStats',
  CreateVolume: 'CreateVolumeRequest -> Volume',
  ListVolumes: 'ListVolumesRequest -> ListVolumesResponse',
  GetVolume: 'GetVolumeRequest -> Volume',
  DeleteVolume: 'DeleteVolumeRequest -> DeleteVolumeResponse',
  ResizeVolume: 'ResizeVolumeRequest -> Volume',
  CreateSnapshot: 'CreateSnapshotRequest -> Snapshot',
  ListSnapshots: 'ListSnapshotsRequest -> ListSnapshotsResponse',
  DeleteSnapshot: 'DeleteSnapshotRequest -> DeleteSnapshotResponse',
  RollbackSnapshot: 'RollbackSnapshotRequest -> Volume',
  ImportTemplate: 'ImportTemplateRequest -> ImportJob',
  GetImportJob: 'GetImportJobRequest -> ImportJob',
  ListImportJobs: 'ListImportJobsRequest -> ListImportJobsResponse',
  CancelImportJob: 'CancelImportJobRequest -> CancelImportJobResponse',
  ListTemplates: 'ListTemplatesRequest -> ListTemplatesResponse',
  DeleteTemplate: 'DeleteTemplateRequest -> DeleteTemplateResponse',
  CloneFromTemplate: 'CloneFromTemplateRequest -> Volume',
  PromoteSnapshotToTemplate: 'PromoteSnapshotRequest -> Template',
  WatchVolumes: 'WatchVolumesRequest -> stream VolumeEvent',
  WatchTemplates: 'WatchTemplatesRequest -> stream TemplateEvent',
};

it('is on the wire what clients of mvirt-zfs speak', () => {
  const root = protobuf.Root.fromJSON(contract as unknown as protobuf.INamespace);
  const { methods } = root.lookupService('mvirt.zfs.ZfsService');
  expect(
    Object.fromEntries(
      Object.entries(methods).map(([name, { requestType, responseType, requestStream, responseStream }]) => {
        expect(requestStream ?? false, name).toBe(false);
        return [name, `${requestType} -> ${responseStream ? 'stream ' : ''}${responseType}`];
      }),
    ),
  ).toEqual(calls);
  const { nested = {} } = root.lookup('mvirt.zfs') as protobuf.Namespace;
  const types = Object.values(nested).filter((each) => each instanceof protobuf.Type);
  expect(Object.fromEntries(types.map((type) => [type.name, wordsOf(type)]))).toEqual(messages);
  const states = [
    'UNSPECIFIED',
    'PENDING',
    'DOWNLOADING',
    'CONVERTING',
    'WRITING',
    'COMPLETED',
    'FAILED',
    'CANCELLED',
  ];
  expect(root.lookupEnum('mvirt.zfs.ImportJobState').values).toEqual(
    Object.fromEntries(states.map((state, index) => [`IMPORT_JOB_STATE_${state}`, index])),
  );
});

/** The fields of a message as the published contract writes them, once they are seen to be numbered in their order. */
function wordsOf({ fieldsArray, name }: protobuf.Type): string {
  const fields = [...fieldsArray].sort((a, b) => a.id - b.id);
  expect(
    fields.map(({ id }) => id),
    name,
  ).toEqual(fields.map((_, index) => index + 1));
  const kindOf = (field: protobuf.Field): string =>
    field.repeated ? 'repeated ' : field.partOf !== null ? 'optional ' : '';
  return fields
    .map(
      (field) =>
        `${kindOf(field)}${field.type} ${field.name.replaceAll(/[A-Z]/g, (c) => `_${c.toLowerCase()}`)}`,
    )
    .join('; ');
}
