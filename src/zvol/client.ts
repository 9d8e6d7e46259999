import {
  credentials,
  makeGenericClientConstructor,
  status,
  type ClientReadableStream,
  type ClientWritableStream,
  type ServiceError,
} from '@grpc/grpc-js';
import { fromJSON, type ServiceDefinition } from '@grpc/proto-loader';
import { once } from 'node:events';
import { Failure, type FailureReason } from '../core/errors.ts';
import { contract } from '../zvold/contract.ts';
import type { ZvoldClient } from './api.ts';
import type {
  Export,
  Import,
  ImportDescription,
  Pool,
  Snapshot,
  Template,
  Volume,
  Watched,
} from './messages.ts';
import type { Proxy } from './proxy.ts';

/** Milliseconds for one call: ZFS's own limit in the guest, and the way there. */
const callDeadline = 660_000;

/** A client of zvold's own contract, over a socket that leads to it; `name` is the machine's, for messages. */
export function clientOver(proxy: Proxy, name: string, signal: AbortSignal): ZvoldClient {
  const definition = fromJSON(contract as unknown as Parameters<typeof fromJSON>[0], {
    longs: Number,
    enums: String,
    defaults: true,
    oneofs: true,
  })['zfsdev.zvol.v1.ZvolService'] as ServiceDefinition;
  const Client = makeGenericClientConstructor(definition, 'ZvolService');
  const client = new Client(`unix:${proxy.path}`, credentials.createInsecure(), {
    'grpc.max_receive_message_length': 256 * 1024 * 1024,
  });
  const explain = (error: unknown): Error => proxy.problem() ?? failureOf(error, name);
  const call = <T>(method: string, request: object, until = signal): Promise<T> =>
    new Promise((resolve, reject) => {
      const { path, requestSerialize, responseDeserialize } = definition[method] ?? missing(method);
      const begun = client.makeUnaryRequest(
        path,
        requestSerialize,
        responseDeserialize,
        request,
        { deadline: Date.now() + callDeadline },
        (error, response) => {
          until.removeEventListener('abort', cancel);
          if (error) reject(explain(error));
          else resolve(response as T);
        },
      );
      const cancel = (): void => begun.cancel();
      until.addEventListener('abort', cancel, { once: true });
      if (until.aborted) cancel();
    });
  const stream = async function* <T>(method: string, request: object, until: AbortSignal): AsyncGenerator<T> {
    const { path, requestSerialize, responseDeserialize } = definition[method] ?? missing(method);
    const begun: ClientReadableStream<unknown> = client.makeServerStreamRequest(
      path,
      requestSerialize,
      responseDeserialize,
      request,
    );
    const cancel = (): void => begun.cancel();
    until.addEventListener('abort', cancel, { once: true });
    if (until.aborted) cancel();
    try {
      for await (const message of begun) yield message as T;
    } catch (error) {
      if (!until.aborted) throw explain(error);
    } finally {
      until.removeEventListener('abort', cancel);
      begun.cancel();
    }
  };
  const upload = async (description: ImportDescription, bytes: AsyncIterable<Buffer>): Promise<Import> => {
    const { path, requestSerialize, responseDeserialize } =
      definition['UploadImport'] ?? missing('UploadImport');
    const over = new AbortController();
    let begun: ClientWritableStream<object> | undefined;
    const answer = new Promise<Import>((resolve, reject) => {
      begun = client.makeClientStreamRequest(
        path,
        requestSerialize,
        responseDeserialize,
        (error, response) => {
          if (error) reject(explain(error));
          else resolve((response as { import: Import }).import);
        },
      );
    });
    const call = begun ?? missing('UploadImport');
    const cancel = (): void => call.cancel();
    signal.addEventListener('abort', cancel, { once: true });
    // The answer tells it, and comes early where zvold wants no more of it.
    call.on('error', () => undefined);
    answer.finally(() => over.abort()).catch(() => undefined);
    try {
      if (signal.aborted) cancel();
      await sendAll(call, description, bytes, over.signal);
      return await answer;
    } catch (error) {
      // zvold wanted no more of it, and has said why.
      if (over.signal.aborted) return await answer;
      call.cancel();
      throw explain(error);
    } finally {
      signal.removeEventListener('abort', cancel);
    }
  };
  return {
    pool: async () => (await call<{ pool: Pool }>('GetPool', {})).pool,
    createPool: async (vdevs, properties) =>
      (await call<{ pool: Pool }>('CreatePool', { vdevs, properties })).pool,
    volumes: async () => (await call<{ volumes: Volume[] }>('ListVolumes', {})).volumes,
    volume: async (volume) => (await call<{ volume: Volume }>('GetVolume', { volume })).volume,
    createVolume: async (wanted) => (await call<{ volume: Volume }>('CreateVolume', wanted)).volume,
    resizeVolume: async (volume, sizeBytes) =>
      (await call<{ volume: Volume }>('ResizeVolume', { volume, sizeBytes })).volume,
    renameVolume: async (volume, newName) =>
      (await call<{ volume: Volume }>('RenameVolume', { volume, newName })).volume,
    deleteVolume: async (volume) => void (await call('DeleteVolume', { volume })),
    createSnapshot: async (volume, name, id = '') =>
      (await call<{ snapshot: Snapshot }>('CreateSnapshot', { volume, name, id })).snapshot,
    deleteSnapshot: (volume, snapshot, deferred = false) =>
      call('DeleteSnapshot', { volume, snapshot, deferred }),
    holdSnapshot: async (volume, snapshot, tag) =>
      (await call<{ snapshot: Snapshot }>('HoldSnapshot', { volume, snapshot, tag })).snapshot,
    releaseSnapshot: async (volume, snapshot, tag) =>
      (await call<{ snapshot: Snapshot | null }>('ReleaseSnapshot', { volume, snapshot, tag })).snapshot ??
      undefined,
    rollback: async (volume, snapshot, deleteNewer = false) =>
      (await call<{ volume: Volume }>('RollbackSnapshot', { volume, snapshot, deleteNewer })).volume,
    templates: async () => (await call<{ templates: Template[] }>('ListTemplates', {})).templates,
    createTemplate: async (wanted) => (await call<{ template: Template }>('CreateTemplate', wanted)).template,
    deleteTemplate: async (template) => void (await call('DeleteTemplate', { template })),
    cloneTemplate: async (wanted) => (await call<{ volume: Volume }>('CloneTemplate', wanted)).volume,
    startImport: async (description, source) =>
      (await call<{ import: Import }>('StartImport', { description, source })).import,
    upload,
    imports: async (includeCompleted = false) =>
      (await call<{ imports: Import[] }>('ListImports', { includeCompleted })).imports,
    import: async (id) => (await call<{ import: Import }>('GetImport', { id })).import,
    cancelImport: (id, until) => call('CancelImport', { id }, until),
    export: ({ volume, snapshot = '', format = 'raw' }, until) =>
      stream<Export>('Export', { volume, snapshot, format: `EXPORT_FORMAT_${format.toUpperCase()}` }, until),
    watch: (until) => stream<Watched>('Watch', {}, until),
    close: async () => {
      client.close();
      await proxy.close();
    },
  };
}

/** Sends all, as fast as it is taken; the signal ends it. */
async function sendAll(
  call: ClientWritableStream<object>,
  description: ImportDescription,
  bytes: AsyncIterable<Buffer>,
  signal: AbortSignal,
): Promise<void> {
  call.write({ description });
  for await (const data of bytes) {
    if (signal.aborted) return;
    if (!call.write({ data })) await once(call, 'drain', { signal });
  }
  call.end();
}

function missing(method: string): never {
  throw new Error(`the contract has no ${method}`);
}

const reasons: Readonly<Partial<Record<status, FailureReason>>> = {
  [status.NOT_FOUND]: 'not-found',
  [status.ALREADY_EXISTS]: 'already-exists',
  [status.FAILED_PRECONDITION]: 'wrong-state',
  [status.ABORTED]: 'wrong-state',
  [status.RESOURCE_EXHAUSTED]: 'no-space',
  [status.INVALID_ARGUMENT]: 'usage',
  [status.PERMISSION_DENIED]: 'usage',
  [status.DEADLINE_EXCEEDED]: 'deadline',
  [status.CANCELLED]: 'interrupted',
};

/** zvold's own words; what its codes mean to the command line. */
function failureOf(error: unknown, name: string): Error {
  if (!(error instanceof Error) || !('code' in error) || !('details' in error))
    return error instanceof Error ? error : new Error(String(error));
  const { code, details } = error as ServiceError;
  const lost = code === status.UNAVAILABLE && !/pool|ZFS/.test(details);
  return new Failure(
    reasons[code] ?? 'guest',
    lost ? `the volume manager of "${name}" does not answer: ${details}` : details,
    {
      ...(code === status.UNAVAILABLE
        ? {
            hint: `zfsdev exec ${name} -- zpool status tells what the pool has; zfsdev exec ${name} -- journalctl -u zfsdev-zvold what zvold said`,
          }
        : {}),
      data: { code: status[code], ...(lost ? { lost } : {}) },
      cause: error,
    },
  );
}
