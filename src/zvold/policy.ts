import { realpath } from 'node:fs/promises';
import { lookup as resolveName } from 'node:dns';
import { BlockList, isIP, type LookupFunction } from 'node:net';
import { networkInterfaces } from 'node:os';
import { normalize, sep } from 'node:path';
import { wordsOf, ZvolError } from './errors.ts';

/** What imports may read, as the daemon was told. */
export interface Policy {
  /** Folders below which local files may be read. */
  readonly folders: readonly string[];
  /** Addresses of this very machine and of its link may be asked. */
  readonly allowLocalAddresses: boolean;
  /** Bytes that an import may make at most. */
  readonly largest: number;
}

/** Characters of a path or an address: what Linux takes for a path. */
const longestSource = 4096;

const local = new BlockList();
for (const [address, bits] of [
  ['127.0.0.0', 8],
  ['0.0.0.0', 8],
  ['169.254.0.0', 16],
] as const)
  local.addSubnet(address, bits, 'ipv4');
local.addAddress('::1', 'ipv6');
local.addAddress('::', 'ipv6');
local.addSubnet('fe80::', 10, 'ipv6');

function isLocal(address: string): boolean {
  const plain = address.replace(/^::ffff:(?=\d+\.)/i, '');
  const family = isIP(plain);
  if (family === 0) return false;
  if (local.check(plain, family === 4 ? 'ipv4' : 'ipv6')) return true;
  // What listens on all of them can be reached by each.
  const own = new BlockList();
  for (const each of Object.values(networkInterfaces()).flat())
    if (each) own.addAddress(each.address, each.family === 'IPv4' ? 'ipv4' : 'ipv6');
  return own.check(plain, family === 4 ? 'ipv4' : 'ipv6');
}

/** A path or an address is a line that can be told in others. @throws ZvolError `INVALID_ARGUMENT` */
export function checkSource(source: string): void {
  // Addresses lose such signs on the way, and messages would be torn apart by them.
  if (/\p{Cc}/u.test(source))
    throw new ZvolError(
      'INVALID_ARGUMENT',
      `the source ${JSON.stringify(source)} has control characters in it`,
    );
  if (source.length > longestSource)
    throw new ZvolError('INVALID_ARGUMENT', `the source has more than ${longestSource} characters`);
}

/**
 * Looks whether a path may be read; links are followed first.
 * @returns the path that it stands for.
 * @throws ZvolError `PERMISSION_DENIED`, `NOT_FOUND`, `INVALID_ARGUMENT`, `FAILED_PRECONDITION` if it can't be looked at
 */
export async function allowedPath({ folders }: Policy, path: string): Promise<string> {
  if (!path.startsWith('/'))
    throw new ZvolError('INVALID_ARGUMENT', `"${path}" is neither an absolute path nor an http(s) address`);
  const denied = new ZvolError(
    'PERMISSION_DENIED',
    `${path} does not lie below an allowed folder (${folders.join(', ') || 'there is none'})`,
  );
  const below = (place: string): boolean =>
    folders.some((folder) => place.startsWith(folder.endsWith(sep) ? folder : folder + sep));
  // Asked before the path is looked at, its `..` taken by their words: whether a file is there is nobody's business elsewhere.
  const plain = normalize(path);
  if (!below(plain)) throw denied;
  let real: string;
  try {
    real = await realpath(plain);
  } catch (error) {
    const isMissing =
      error instanceof Error && 'code' in error && (error.code === 'ENOENT' || error.code === 'ENOTDIR');
    throw isMissing
      ? new ZvolError('NOT_FOUND', `there is no file ${path}`, error)
      : new ZvolError('FAILED_PRECONDITION', `${path} can't be looked at: ${wordsOf(error)}`, error);
  }
  if (!below(real)) throw denied;
  return real;
}

/** An address that may be asked. @throws ZvolError `PERMISSION_DENIED`, `INVALID_ARGUMENT` */
export function allowedUrl({ allowLocalAddresses }: Policy, text: string): URL {
  let url: URL;
  try {
    url = new URL(text);
  } catch (error) {
    throw new ZvolError('INVALID_ARGUMENT', `"${text}" is no address`, error);
  }
  if (url.protocol !== 'http:' && url.protocol !== 'https:')
    throw new ZvolError('PERMISSION_DENIED', `${text} is neither http nor https`);
  // A number instead of a name never comes to a lookup.
  if (!allowLocalAddresses && isLocal(url.hostname.replace(/^\[|\]$/g, ''))) throw localRefused(url.hostname);
  return url;
}

function localRefused(host: string): ZvolError {
  return new ZvolError(
    'PERMISSION_DENIED',
    `${host} is an address of this machine or its link, which imports may not ask`,
  );
}

/** Looks names up for connections: the very address that is looked at is the one that is asked. */
export function lookupFor({ allowLocalAddresses }: Policy): LookupFunction {
  return (hostname, options, callback) => {
    resolveName(hostname, { ...options, all: true }, (error, addresses) => {
      if (error) return callback(error, '', 0);
      const allowed = addresses.filter(({ address }) => allowLocalAddresses || !isLocal(address));
      const [first] = allowed;
      if (!first) return callback(localRefused(hostname), '', 0);
      if (options.all) return callback(null, allowed);
      return callback(null, first.address, first.family);
    });
  };
}
