import { resolve } from 'node:path';
import { Failure } from '../core/errors.ts';
import type { InstanceName } from '../core/names.ts';
import { printable } from '../host/run.ts';
import type { KeyProblem } from '../template/schema.ts';
import { readStorage } from '../template/storage-keys.ts';
import { resolveStorage } from '../template/storage-resolve.ts';
import { isShare, type DiskDevice } from '../template/storage.ts';

/** A disk as options describe it: the keys of a template's `storage:`, with paths as they were typed. */
export interface DiskOptions {
  readonly type?: string;
  readonly size?: string;
  readonly file?: string;
  readonly interface?: string;
  readonly media?: string;
  readonly readonly?: boolean;
  readonly backingFile?: string;
  readonly backingFormat?: string;
  /** False for `--no-discard`. */
  readonly discard?: boolean;
  readonly clusterSize?: string;
  readonly compression?: string;
  readonly passphraseFile?: string;
}

/**
 * Reads a disk by the rules of templates; relative paths are those of the present folder.
 * @throws Failure `usage` that names each option which is wrong
 */
export function diskFromOptions(name: string, options: DiskOptions): DiskDevice {
  const { clusterSize, compression, passphraseFile } = options;
  const format = {
    ...(clusterSize === undefined ? {} : { cluster_size: clusterSize }),
    ...(compression === undefined ? {} : { compression }),
    ...(passphraseFile === undefined ? {} : { encryption: { passphrase_file: passphraseFile } }),
  };
  const keys: Record<string, unknown> = {
    name,
    type: options.type ?? 'qcow2',
    size: options.size,
    file: options.file,
    interface: options.interface,
    media: options.media,
    readonly: options.readonly,
    backing_file: options.backingFile,
    backing_format: options.backingFormat,
    discard: options.discard === false ? false : undefined,
    format: Object.keys(format).length === 0 ? undefined : format,
  };
  const given = Object.fromEntries(Object.entries(keys).filter(([, value]) => value !== undefined));
  const problems: KeyProblem[] = [];
  const [device] = readStorage([given], problems);
  if (problems.length > 0 || device === undefined || isShare(device)) throw wrongOptions(problems);
  const [disk] = resolveStorage([device], resolve('options'));
  if (disk === undefined || isShare(disk)) throw new Error('a disk became something else');
  return disk;
}

/** The options of a disk whose keys are wrong, in the order in which they were read. */
function wrongOptions(problems: readonly KeyProblem[]): Failure {
  const lines = problems.map(({ path, message }) => {
    const key = path.at(-1) ?? '';
    const said =
      key === 'name' ? 'the name' : /^\d+$/.test(key) ? 'the disk' : `--${key.replaceAll('_', '-')}`;
    return `${said} ${message}`;
  });
  const [first = 'this is no disk', ...more] = lines;
  return new Failure('usage', first, {
    ...(more.length === 0 ? {} : { detail: more.join('\n') }),
    hint: 'zfsdev disk add --help',
  });
}

/** The command that adds a disk, for hints. */
export function addCommand(machine: InstanceName, name: string, options: DiskOptions): string {
  const words = Object.entries(options).flatMap(([key, value]: [string, unknown]) => {
    const flag = `--${key.replaceAll(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}`;
    if (value === true) return [flag];
    if (value === false) return [`--no-${flag.slice(2)}`];
    return typeof value === 'string' ? [flag, value] : [];
  });
  return printable(['zfsdev', 'disk', 'add', machine, name, ...words]);
}
