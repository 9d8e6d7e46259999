// Generated from proto/ by npm run generate.
export const contract = {
  nested: {
    mvirt: {
      nested: {
        zfs: {
          nested: {
            ZfsService: {
              methods: {
                GetVersion: { requestType: 'GetVersionRequest', responseType: 'VersionInfo' },
                GetPoolStats: { requestType: 'GetPoolStatsRequest', responseType: 'PoolStats' },
                CreateVolume: { requestType: 'CreateVolumeRequest', responseType: 'Volume' },
                ListVolumes: { requestType: 'ListVolumesRequest', responseType: 'ListVolumesResponse' },
                GetVolume: { requestType: 'GetVolumeRequest', responseType: 'Volume' },
                DeleteVolume: { requestType: 'DeleteVolumeRequest', responseType: 'DeleteVolumeResponse' },
                ResizeVolume: { requestType: 'ResizeVolumeRequest', responseType: 'Volume' },
                CreateSnapshot: { requestType: 'CreateSnapshotRequest', responseType: 'Snapshot' },
                ListSnapshots: { requestType: 'ListSnapshotsRequest', responseType: 'ListSnapshotsResponse' },
                DeleteSnapshot: {
                  requestType: 'DeleteSnapshotRequest',
                  responseType: 'DeleteSnapshotResponse',
                },
                RollbackSnapshot: { requestType: 'RollbackSnapshotRequest', responseType: 'Volume' },
                ImportTemplate: { requestType: 'ImportTemplateRequest', responseType: 'ImportJob' },
                GetImportJob: { requestType: 'GetImportJobRequest', responseType: 'ImportJob' },
                ListImportJobs: {
                  requestType: 'ListImportJobsRequest',
                  responseType: 'ListImportJobsResponse',
                },
                CancelImportJob: {
                  requestType: 'CancelImportJobRequest',
                  responseType: 'CancelImportJobResponse',
                },
                ListTemplates: { requestType: 'ListTemplatesRequest', responseType: 'ListTemplatesResponse' },
                DeleteTemplate: {
                  requestType: 'DeleteTemplateRequest',
                  responseType: 'DeleteTemplateResponse',
                },
                CloneFromTemplate: { requestType: 'CloneFromTemplateRequest', responseType: 'Volume' },
                PromoteSnapshotToTemplate: {
                  requestType: 'PromoteSnapshotRequest',
                  responseType: 'Template',
                },
                WatchVolumes: {
                  requestType: 'WatchVolumesRequest',
                  responseType: 'VolumeEvent',
                  responseStream: true,
                },
                WatchTemplates: {
                  requestType: 'WatchTemplatesRequest',
                  responseType: 'TemplateEvent',
                  responseStream: true,
                },
              },
            },
            GetVersionRequest: { fields: {} },
            VersionInfo: { fields: { version: { type: 'string', id: 1 } } },
            GetPoolStatsRequest: { fields: {} },
            PoolStats: {
              fields: {
                name: { type: 'string', id: 1 },
                totalBytes: { type: 'uint64', id: 2 },
                availableBytes: { type: 'uint64', id: 3 },
                usedBytes: { type: 'uint64', id: 4 },
                provisionedBytes: { type: 'uint64', id: 5 },
                compressionRatio: { type: 'double', id: 6 },
              },
            },
            Volume: {
              fields: {
                id: { type: 'string', id: 1 },
                name: { type: 'string', id: 2 },
                path: { type: 'string', id: 3 },
                volsizeBytes: { type: 'uint64', id: 4 },
                usedBytes: { type: 'uint64', id: 5 },
                volblocksize: { type: 'uint64', id: 6 },
                compressionRatio: { type: 'double', id: 7 },
                createdAt: { type: 'string', id: 8 },
                snapshots: { rule: 'repeated', type: 'Snapshot', id: 9 },
              },
            },
            Snapshot: {
              fields: {
                id: { type: 'string', id: 1 },
                name: { type: 'string', id: 2 },
                fullName: { type: 'string', id: 3 },
                usedBytes: { type: 'uint64', id: 4 },
                createdAt: { type: 'string', id: 5 },
              },
            },
            Template: {
              fields: {
                id: { type: 'string', id: 1 },
                name: { type: 'string', id: 2 },
                snapshotPath: { type: 'string', id: 3 },
                sourceVolume: { type: 'string', id: 4 },
                sizeBytes: { type: 'uint64', id: 5 },
                createdAt: { type: 'string', id: 6 },
                cloneCount: { type: 'uint32', id: 7 },
              },
            },
            ImportJobState: {
              values: {
                IMPORT_JOB_STATE_UNSPECIFIED: 0,
                IMPORT_JOB_STATE_PENDING: 1,
                IMPORT_JOB_STATE_DOWNLOADING: 2,
                IMPORT_JOB_STATE_CONVERTING: 3,
                IMPORT_JOB_STATE_WRITING: 4,
                IMPORT_JOB_STATE_COMPLETED: 5,
                IMPORT_JOB_STATE_FAILED: 6,
                IMPORT_JOB_STATE_CANCELLED: 7,
              },
            },
            ImportJob: {
              oneofs: {
                _error: { oneof: ['error'] },
                _template: { oneof: ['template'] },
                _completedAt: { oneof: ['completedAt'] },
              },
              fields: {
                id: { type: 'string', id: 1 },
                templateName: { type: 'string', id: 2 },
                source: { type: 'string', id: 3 },
                state: { type: 'ImportJobState', id: 4 },
                bytesWritten: { type: 'uint64', id: 5 },
                totalBytes: { type: 'uint64', id: 6 },
                error: { type: 'string', id: 7, options: { proto3_optional: true } },
                template: { type: 'Template', id: 8, options: { proto3_optional: true } },
                createdAt: { type: 'string', id: 9 },
                completedAt: { type: 'string', id: 10, options: { proto3_optional: true } },
              },
            },
            CreateVolumeRequest: {
              oneofs: { _volblocksize: { oneof: ['volblocksize'] } },
              fields: {
                name: { type: 'string', id: 1 },
                sizeBytes: { type: 'uint64', id: 2 },
                volblocksize: { type: 'uint32', id: 3, options: { proto3_optional: true } },
                id: { type: 'string', id: 4 },
              },
            },
            ListVolumesRequest: { fields: {} },
            ListVolumesResponse: { fields: { volumes: { rule: 'repeated', type: 'Volume', id: 1 } } },
            GetVolumeRequest: { fields: { name: { type: 'string', id: 1 } } },
            DeleteVolumeRequest: { fields: { name: { type: 'string', id: 1 } } },
            DeleteVolumeResponse: { fields: { deleted: { type: 'bool', id: 1 } } },
            ResizeVolumeRequest: {
              fields: { name: { type: 'string', id: 1 }, newSizeBytes: { type: 'uint64', id: 2 } },
            },
            CreateSnapshotRequest: {
              fields: { volumeName: { type: 'string', id: 1 }, snapshotName: { type: 'string', id: 2 } },
            },
            ListSnapshotsRequest: { fields: { volumeName: { type: 'string', id: 1 } } },
            ListSnapshotsResponse: { fields: { snapshots: { rule: 'repeated', type: 'Snapshot', id: 1 } } },
            DeleteSnapshotRequest: {
              fields: { volumeName: { type: 'string', id: 1 }, snapshotName: { type: 'string', id: 2 } },
            },
            DeleteSnapshotResponse: { fields: { deleted: { type: 'bool', id: 1 } } },
            RollbackSnapshotRequest: {
              fields: { volumeName: { type: 'string', id: 1 }, snapshotName: { type: 'string', id: 2 } },
            },
            ImportTemplateRequest: {
              oneofs: { _sizeBytes: { oneof: ['sizeBytes'] } },
              fields: {
                name: { type: 'string', id: 1 },
                source: { type: 'string', id: 2 },
                sizeBytes: { type: 'uint64', id: 3, options: { proto3_optional: true } },
              },
            },
            GetImportJobRequest: { fields: { id: { type: 'string', id: 1 } } },
            ListImportJobsRequest: { fields: { includeCompleted: { type: 'bool', id: 1 } } },
            ListImportJobsResponse: { fields: { jobs: { rule: 'repeated', type: 'ImportJob', id: 1 } } },
            CancelImportJobRequest: { fields: { id: { type: 'string', id: 1 } } },
            CancelImportJobResponse: { fields: { cancelled: { type: 'bool', id: 1 } } },
            ListTemplatesRequest: { fields: {} },
            ListTemplatesResponse: { fields: { templates: { rule: 'repeated', type: 'Template', id: 1 } } },
            DeleteTemplateRequest: { fields: { name: { type: 'string', id: 1 } } },
            DeleteTemplateResponse: { fields: { deleted: { type: 'bool', id: 1 } } },
            CloneFromTemplateRequest: {
              oneofs: { _sizeBytes: { oneof: ['sizeBytes'] } },
              fields: {
                templateName: { type: 'string', id: 1 },
                newVolumeName: { type: 'string', id: 2 },
                sizeBytes: { type: 'uint64', id: 3, options: { proto3_optional: true } },
                id: { type: 'string', id: 4 },
              },
            },
            PromoteSnapshotRequest: {
              fields: {
                volumeName: { type: 'string', id: 1 },
                snapshotName: { type: 'string', id: 2 },
                templateName: { type: 'string', id: 3 },
              },
            },
            WatchVolumesRequest: { fields: {} },
            VolumeEvent: {
              oneofs: { _volume: { oneof: ['volume'] } },
              fields: {
                volumeId: { type: 'string', id: 1 },
                timestamp: { type: 'int64', id: 2 },
                volume: { type: 'Volume', id: 3, options: { proto3_optional: true } },
              },
            },
            WatchTemplatesRequest: { fields: {} },
            TemplateEvent: {
              oneofs: { _template: { oneof: ['template'] }, _importJob: { oneof: ['importJob'] } },
              fields: {
                templateId: { type: 'string', id: 1 },
                timestamp: { type: 'int64', id: 2 },
                template: { type: 'Template', id: 3, options: { proto3_optional: true } },
                importJob: { type: 'ImportJob', id: 4, options: { proto3_optional: true } },
              },
            },
          },
        },
      },
    },
    zfsdev: {
      nested: {
        zvol: {
          nested: {
            v1: {
              nested: {
                ZvolService: {
                  methods: {
                    GetVersion: { requestType: 'GetVersionRequest', responseType: 'GetVersionResponse' },
                    GetPool: { requestType: 'GetPoolRequest', responseType: 'GetPoolResponse' },
                    CreatePool: { requestType: 'CreatePoolRequest', responseType: 'CreatePoolResponse' },
                    CreateVolume: {
                      requestType: 'CreateVolumeRequest',
                      responseType: 'CreateVolumeResponse',
                    },
                    ListVolumes: { requestType: 'ListVolumesRequest', responseType: 'ListVolumesResponse' },
                    GetVolume: { requestType: 'GetVolumeRequest', responseType: 'GetVolumeResponse' },
                    ResizeVolume: {
                      requestType: 'ResizeVolumeRequest',
                      responseType: 'ResizeVolumeResponse',
                    },
                    RenameVolume: {
                      requestType: 'RenameVolumeRequest',
                      responseType: 'RenameVolumeResponse',
                    },
                    DeleteVolume: {
                      requestType: 'DeleteVolumeRequest',
                      responseType: 'DeleteVolumeResponse',
                    },
                    CreateSnapshot: {
                      requestType: 'CreateSnapshotRequest',
                      responseType: 'CreateSnapshotResponse',
                    },
                    ListSnapshots: {
                      requestType: 'ListSnapshotsRequest',
                      responseType: 'ListSnapshotsResponse',
                    },
                    DeleteSnapshot: {
                      requestType: 'DeleteSnapshotRequest',
                      responseType: 'DeleteSnapshotResponse',
                    },
                    HoldSnapshot: {
                      requestType: 'HoldSnapshotRequest',
                      responseType: 'HoldSnapshotResponse',
                    },
                    ReleaseSnapshot: {
                      requestType: 'ReleaseSnapshotRequest',
                      responseType: 'ReleaseSnapshotResponse',
                    },
                    RollbackSnapshot: {
                      requestType: 'RollbackSnapshotRequest',
                      responseType: 'RollbackSnapshotResponse',
                    },
                    CreateTemplate: {
                      requestType: 'CreateTemplateRequest',
                      responseType: 'CreateTemplateResponse',
                    },
                    ListTemplates: {
                      requestType: 'ListTemplatesRequest',
                      responseType: 'ListTemplatesResponse',
                    },
                    DeleteTemplate: {
                      requestType: 'DeleteTemplateRequest',
                      responseType: 'DeleteTemplateResponse',
                    },
                    CloneTemplate: {
                      requestType: 'CloneTemplateRequest',
                      responseType: 'CloneTemplateResponse',
                    },
                    StartImport: { requestType: 'StartImportRequest', responseType: 'StartImportResponse' },
                    UploadImport: {
                      requestType: 'UploadImportRequest',
                      requestStream: true,
                      responseType: 'UploadImportResponse',
                    },
                    GetImport: { requestType: 'GetImportRequest', responseType: 'GetImportResponse' },
                    ListImports: { requestType: 'ListImportsRequest', responseType: 'ListImportsResponse' },
                    CancelImport: {
                      requestType: 'CancelImportRequest',
                      responseType: 'CancelImportResponse',
                    },
                    Export: {
                      requestType: 'ExportRequest',
                      responseType: 'ExportResponse',
                      responseStream: true,
                    },
                    Watch: {
                      requestType: 'WatchRequest',
                      responseType: 'WatchResponse',
                      responseStream: true,
                    },
                  },
                },
                Volume: {
                  fields: {
                    id: { type: 'string', id: 1 },
                    name: { type: 'string', id: 2 },
                    path: { type: 'string', id: 3 },
                    sizeBytes: { type: 'uint64', id: 4 },
                    usedBytes: { type: 'uint64', id: 5 },
                    referencedBytes: { type: 'uint64', id: 6 },
                    reservedBytes: { type: 'uint64', id: 7 },
                    volblocksize: { type: 'uint32', id: 8 },
                    compressionRatio: { type: 'double', id: 9 },
                    createdAt: { type: 'google.protobuf.Timestamp', id: 10 },
                    template: { type: 'string', id: 11 },
                    snapshots: { rule: 'repeated', type: 'Snapshot', id: 12 },
                  },
                },
                Snapshot: {
                  fields: {
                    id: { type: 'string', id: 1 },
                    name: { type: 'string', id: 2 },
                    fullName: { type: 'string', id: 3 },
                    usedBytes: { type: 'uint64', id: 4 },
                    referencedBytes: { type: 'uint64', id: 5 },
                    createdAt: { type: 'google.protobuf.Timestamp', id: 6 },
                    holds: { type: 'uint32', id: 7 },
                    clones: { rule: 'repeated', type: 'string', id: 8 },
                  },
                },
                Template: {
                  fields: {
                    id: { type: 'string', id: 1 },
                    name: { type: 'string', id: 2 },
                    snapshot: { type: 'string', id: 3 },
                    sourceVolume: { type: 'string', id: 4 },
                    sizeBytes: { type: 'uint64', id: 5 },
                    referencedBytes: { type: 'uint64', id: 6 },
                    createdAt: { type: 'google.protobuf.Timestamp', id: 7 },
                    clones: { rule: 'repeated', type: 'string', id: 8 },
                  },
                },
                ImportState: {
                  values: {
                    IMPORT_STATE_UNSPECIFIED: 0,
                    IMPORT_STATE_PENDING: 1,
                    IMPORT_STATE_DOWNLOADING: 2,
                    IMPORT_STATE_CONVERTING: 3,
                    IMPORT_STATE_WRITING: 4,
                    IMPORT_STATE_COMPLETED: 5,
                    IMPORT_STATE_FAILED: 6,
                    IMPORT_STATE_CANCELLED: 7,
                  },
                },
                ImportTarget: {
                  values: {
                    IMPORT_TARGET_UNSPECIFIED: 0,
                    IMPORT_TARGET_TEMPLATE: 1,
                    IMPORT_TARGET_VOLUME: 2,
                  },
                },
                Import: {
                  fields: {
                    id: { type: 'string', id: 1 },
                    name: { type: 'string', id: 2 },
                    target: { type: 'ImportTarget', id: 3 },
                    source: { type: 'string', id: 4 },
                    state: { type: 'ImportState', id: 5 },
                    doneBytes: { type: 'uint64', id: 6 },
                    totalBytes: { type: 'uint64', id: 7 },
                    error: { type: 'string', id: 8 },
                    createdAt: { type: 'google.protobuf.Timestamp', id: 9 },
                    completedAt: { type: 'google.protobuf.Timestamp', id: 10 },
                    volume: { type: 'Volume', id: 11 },
                    template: { type: 'Template', id: 12 },
                  },
                },
                Pool: {
                  fields: {
                    name: { type: 'string', id: 1 },
                    sizeBytes: { type: 'uint64', id: 2 },
                    freeBytes: { type: 'uint64', id: 3 },
                    allocatedBytes: { type: 'uint64', id: 4 },
                    provisionedBytes: { type: 'uint64', id: 5 },
                    compressionRatio: { type: 'double', id: 6 },
                    health: { type: 'string', id: 7 },
                    fragmentationPercent: { type: 'uint32', id: 8 },
                  },
                },
                GetVersionRequest: { fields: {} },
                GetVersionResponse: {
                  fields: { version: { type: 'string', id: 1 }, openzfs: { type: 'string', id: 2 } },
                },
                GetPoolRequest: { fields: {} },
                GetPoolResponse: { fields: { pool: { type: 'Pool', id: 1 } } },
                CreatePoolRequest: {
                  fields: {
                    vdevs: { rule: 'repeated', type: 'string', id: 1 },
                    properties: { keyType: 'string', type: 'string', id: 2 },
                  },
                },
                CreatePoolResponse: { fields: { pool: { type: 'Pool', id: 1 } } },
                CreateVolumeRequest: {
                  oneofs: { _volblocksize: { oneof: ['volblocksize'] } },
                  fields: {
                    name: { type: 'string', id: 1 },
                    sizeBytes: { type: 'uint64', id: 2 },
                    volblocksize: { type: 'uint32', id: 3, options: { proto3_optional: true } },
                    thick: { type: 'bool', id: 4 },
                    id: { type: 'string', id: 5 },
                  },
                },
                CreateVolumeResponse: { fields: { volume: { type: 'Volume', id: 1 } } },
                ListVolumesRequest: { fields: {} },
                ListVolumesResponse: { fields: { volumes: { rule: 'repeated', type: 'Volume', id: 1 } } },
                GetVolumeRequest: { fields: { volume: { type: 'string', id: 1 } } },
                GetVolumeResponse: { fields: { volume: { type: 'Volume', id: 1 } } },
                ResizeVolumeRequest: {
                  fields: { volume: { type: 'string', id: 1 }, sizeBytes: { type: 'uint64', id: 2 } },
                },
                ResizeVolumeResponse: { fields: { volume: { type: 'Volume', id: 1 } } },
                RenameVolumeRequest: {
                  fields: { volume: { type: 'string', id: 1 }, newName: { type: 'string', id: 2 } },
                },
                RenameVolumeResponse: { fields: { volume: { type: 'Volume', id: 1 } } },
                DeleteVolumeRequest: { fields: { volume: { type: 'string', id: 1 } } },
                DeleteVolumeResponse: { fields: {} },
                CreateSnapshotRequest: {
                  fields: {
                    volume: { type: 'string', id: 1 },
                    name: { type: 'string', id: 2 },
                    id: { type: 'string', id: 3 },
                  },
                },
                CreateSnapshotResponse: { fields: { snapshot: { type: 'Snapshot', id: 1 } } },
                ListSnapshotsRequest: { fields: { volume: { type: 'string', id: 1 } } },
                ListSnapshotsResponse: {
                  fields: { snapshots: { rule: 'repeated', type: 'Snapshot', id: 1 } },
                },
                DeleteSnapshotRequest: {
                  fields: {
                    volume: { type: 'string', id: 1 },
                    snapshot: { type: 'string', id: 2 },
                    deferred: { type: 'bool', id: 3 },
                  },
                },
                DeleteSnapshotResponse: { fields: { deferred: { type: 'bool', id: 1 } } },
                HoldSnapshotRequest: {
                  fields: {
                    volume: { type: 'string', id: 1 },
                    snapshot: { type: 'string', id: 2 },
                    tag: { type: 'string', id: 3 },
                  },
                },
                HoldSnapshotResponse: { fields: { snapshot: { type: 'Snapshot', id: 1 } } },
                ReleaseSnapshotRequest: {
                  fields: {
                    volume: { type: 'string', id: 1 },
                    snapshot: { type: 'string', id: 2 },
                    tag: { type: 'string', id: 3 },
                  },
                },
                ReleaseSnapshotResponse: {
                  oneofs: { _snapshot: { oneof: ['snapshot'] } },
                  fields: { snapshot: { type: 'Snapshot', id: 1, options: { proto3_optional: true } } },
                },
                RollbackSnapshotRequest: {
                  fields: {
                    volume: { type: 'string', id: 1 },
                    snapshot: { type: 'string', id: 2 },
                    deleteNewer: { type: 'bool', id: 3 },
                  },
                },
                RollbackSnapshotResponse: { fields: { volume: { type: 'Volume', id: 1 } } },
                CreateTemplateRequest: {
                  fields: {
                    name: { type: 'string', id: 1 },
                    volume: { type: 'string', id: 2 },
                    snapshot: { type: 'string', id: 3 },
                    id: { type: 'string', id: 4 },
                  },
                },
                CreateTemplateResponse: { fields: { template: { type: 'Template', id: 1 } } },
                ListTemplatesRequest: { fields: {} },
                ListTemplatesResponse: {
                  fields: { templates: { rule: 'repeated', type: 'Template', id: 1 } },
                },
                DeleteTemplateRequest: { fields: { template: { type: 'string', id: 1 } } },
                DeleteTemplateResponse: { fields: {} },
                CloneTemplateRequest: {
                  oneofs: { _sizeBytes: { oneof: ['sizeBytes'] } },
                  fields: {
                    template: { type: 'string', id: 1 },
                    name: { type: 'string', id: 2 },
                    sizeBytes: { type: 'uint64', id: 3, options: { proto3_optional: true } },
                    id: { type: 'string', id: 4 },
                  },
                },
                CloneTemplateResponse: { fields: { volume: { type: 'Volume', id: 1 } } },
                ImportDescription: {
                  oneofs: {
                    _sizeBytes: { oneof: ['sizeBytes'] },
                    _volblocksize: { oneof: ['volblocksize'] },
                  },
                  fields: {
                    name: { type: 'string', id: 1 },
                    target: { type: 'ImportTarget', id: 2 },
                    sizeBytes: { type: 'uint64', id: 3, options: { proto3_optional: true } },
                    volblocksize: { type: 'uint32', id: 4, options: { proto3_optional: true } },
                    sha256: { type: 'string', id: 5 },
                    id: { type: 'string', id: 6 },
                  },
                },
                StartImportRequest: {
                  fields: {
                    description: { type: 'ImportDescription', id: 1 },
                    source: { type: 'string', id: 2 },
                  },
                },
                StartImportResponse: { fields: { import: { type: 'Import', id: 1 } } },
                UploadImportRequest: {
                  oneofs: { part: { oneof: ['description', 'data'] } },
                  fields: {
                    description: { type: 'ImportDescription', id: 1 },
                    data: { type: 'bytes', id: 2 },
                  },
                },
                UploadImportResponse: { fields: { import: { type: 'Import', id: 1 } } },
                GetImportRequest: { fields: { id: { type: 'string', id: 1 } } },
                GetImportResponse: { fields: { import: { type: 'Import', id: 1 } } },
                ListImportsRequest: { fields: { includeCompleted: { type: 'bool', id: 1 } } },
                ListImportsResponse: { fields: { imports: { rule: 'repeated', type: 'Import', id: 1 } } },
                CancelImportRequest: { fields: { id: { type: 'string', id: 1 } } },
                CancelImportResponse: { fields: { cancelled: { type: 'bool', id: 1 } } },
                ExportFormat: {
                  values: { EXPORT_FORMAT_UNSPECIFIED: 0, EXPORT_FORMAT_RAW: 1, EXPORT_FORMAT_QCOW2: 2 },
                },
                ExportRequest: {
                  fields: {
                    volume: { type: 'string', id: 1 },
                    snapshot: { type: 'string', id: 2 },
                    format: { type: 'ExportFormat', id: 3 },
                  },
                },
                ExportResponse: {
                  oneofs: { _totalBytes: { oneof: ['totalBytes'] } },
                  fields: {
                    offset: { type: 'uint64', id: 1 },
                    data: { type: 'bytes', id: 2 },
                    totalBytes: { type: 'uint64', id: 3, options: { proto3_optional: true } },
                    sha256: { type: 'string', id: 4 },
                  },
                },
                WatchRequest: { fields: {} },
                WatchResponse: {
                  oneofs: {
                    event: {
                      oneof: [
                        'synced',
                        'resync',
                        'volume',
                        'volumeDeleted',
                        'template',
                        'templateDeleted',
                        'import',
                      ],
                    },
                  },
                  fields: {
                    time: { type: 'google.protobuf.Timestamp', id: 1 },
                    synced: { type: 'bool', id: 2 },
                    resync: { type: 'bool', id: 3 },
                    volume: { type: 'Volume', id: 4 },
                    volumeDeleted: { type: 'string', id: 5 },
                    template: { type: 'Template', id: 6 },
                    templateDeleted: { type: 'string', id: 7 },
                    import: { type: 'Import', id: 8 },
                  },
                },
              },
            },
          },
        },
      },
    },
    google: {
      nested: {
        protobuf: {
          nested: {
            Timestamp: { fields: { seconds: { type: 'int64', id: 1 }, nanos: { type: 'int32', id: 2 } } },
          },
        },
      },
    },
  },
};
