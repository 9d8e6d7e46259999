import { bytes, exactBytes, formatBytes } from '../core/bytes.ts';
import { parseName } from '../core/names.ts';
import { actualSize, exists } from '../host/files.ts';
import { isShare, type StorageDevice } from '../template/storage.ts';
import { consoleLog, machineFiles, type StorageFile } from '../vm/machine-files.ts';
import { pauseOf, pauseWords } from '../vm/pause.ts';
import { readTable } from '../vm/snapshot-disks.ts';
import { virtualSize } from '../vm/storage-claims.ts';
import { requireInstance } from '../vm/store.ts';
import type { Session } from './session.ts';

/** `zfsdev inspect`: all that is known of one instance. */
export async function inspect(session: Session, nameText: string): Promise<void> {
  const { ctx } = session;
  const found = await requireInstance(ctx, parseName(nameText));
  const paths = ctx.paths.instance(found.name);
  const { instance } = found;
  const { disks, folder: folderPath, storage } = await machineFiles(ctx, found.name, instance);
  const further = storageOf(instance?.spec.storage ?? [], storage);
  const disk = disks[0] ?? paths.disk;
  const actual = actualSize(disk);
  const snapshots = (await readTable(disk).catch(() => undefined))?.snapshots.length;
  const pause = await pauseOf(ctx, found);
  const broken = found.status === 'broken' ? { reason: found.reason } : {};
  const process = found.pid === undefined ? {} : { pid: found.pid };
  const document = {
    name: found.name,
    status: found.status,
    ...broken,
    ...(pause === undefined ? {} : { pause }),
    protected: found.protected,
    folder: folderPath,
    ...process,
    disk: {
      path: disk,
      actualBytes: actual,
      ...(instance ? { virtualBytes: instance.spec.disk, boundBytes: instance.state.diskBound } : {}),
    },
    ...(further.length === 0 ? {} : { storage: further.map(({ document: each }) => each) }),
    ...(snapshots === undefined ? {} : { snapshots }),
    console: await consoleLog(ctx, instance ?? found),
    ...(instance ? { spec: instance.spec, state: instance.state } : {}),
  };
  await session.answer(document, () => {
    const spec = instance?.spec;
    const state = instance?.state;
    const rows: [string, string | undefined][] = [
      ['name', found.name + (found.protected ? ' (protected)' : '')],
      [
        'status',
        found.status === 'broken'
          ? `broken: ${found.reason}`
          : pause
            ? `paused: ${pauseWords[pause]} (zfsdev resume ${found.name})`
            : found.status,
      ],
      ['template', spec?.template],
      ['driver', state && `${state.driver}${state.accelerator ? ` (${state.accelerator})` : ''}`],
      ['cpus, memory', spec && `${spec.cpus}, ${exactBytes(spec.memory)}`],
      [
        'disk',
        spec &&
          state &&
          `${exactBytes(spec.disk)} virtual, ${formatBytes(actual)} actual, at most ${formatBytes(state.diskBound)}`,
      ],
      ...further.map(({ name, text }, index): [string, string] => [
        index === 0 ? 'storage' : '',
        `${name}: ${text}`,
      ]),
      ['snapshots', snapshots ? `${snapshots} (zfsdev snapshot list ${found.name})` : undefined],
      [
        'pool',
        spec?.pool &&
          `${spec.pool.name}: mirror of ${spec.pool.fileCount} files of ${exactBytes(spec.pool.fileSize)}`,
      ],
      ['image', state?.imageDigest.slice(0, 12) || undefined],
      ['created', state?.created],
      ['started', found.status === 'running' ? found.instance.state.started : undefined],
      ['process', found.pid === undefined ? undefined : String(found.pid)],
      [
        'ssh',
        found.status === 'running' && found.instance.state.sshPort !== undefined
          ? `127.0.0.1 port ${found.instance.state.sshPort}`
          : undefined,
      ],
      ['folder', folderPath],
    ];
    return rows.map(([key, value]) => (value === undefined ? '' : `${key.padEnd(14)}${value}\n`)).join('');
  });
}

/** What there is to say of each disk and share of a machine's storage. */
function storageOf(
  storage: readonly StorageDevice[],
  files: readonly StorageFile[],
): { readonly name: string; readonly document: object; readonly text: string }[] {
  return storage.map((device) => {
    const { name } = device;
    if (isShare(device)) {
      const { path, mountAt, protocol, readonly } = device;
      const access = readonly ? ', only read' : '';
      return { name, document: device, text: `${path} at ${mountAt}, by ${protocol}${access}` };
    }
    const path = files.find(({ disk }) => disk.name === name)?.path ?? device.file ?? '';
    const isThere = exists(path);
    const virtual = isThere ? virtualSize(path, device.type) : device.size;
    const actual = actualSize(path);
    const words = [
      ...(virtual === undefined ? [] : [`${exactBytes(bytes(virtual))} virtual`]),
      isThere ? `${formatBytes(actual)} actual` : 'not made yet',
      ...(device.readonly ? ['only read'] : []),
    ];
    return {
      name,
      document: {
        ...device,
        path,
        actualBytes: actual,
        ...(virtual === undefined ? {} : { virtualBytes: virtual }),
      },
      text: `${device.type} by ${device.interface}, ${words.join(', ')}, ${path}`,
    };
  });
}
