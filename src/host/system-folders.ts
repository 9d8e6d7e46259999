import { realpathSync } from 'node:fs';
import { basename, dirname, join, resolve, sep } from 'node:path';
import { hasCode } from '../core/errors.ts';

/** What belongs to the system: nobody's disks are made there. */
const systemFolders = [
  ...[
    '/bin',
    '/boot',
    '/dev',
    '/etc',
    '/lib',
    '/lib32',
    '/lib64',
    '/libx32',
    '/proc',
    '/root',
    '/run',
    '/sbin',
  ],
  ...['/sys', '/usr', '/var'],
  // macOS, where /etc and /var are links.
  ...['/Applications', '/Library', '/System', '/private/etc', '/private/var'],
];

/** What lies in those and is there for everybody's files, or for disks of machines. */
const exceptions = [
  ...['/var/tmp', '/var/lib/libvirt/images', '/var/lib/zfsdev', '/run/media'],
  ...['/private/var/tmp', '/private/var/folders'],
];

/** Where the user's own home may lie: root's is in the first one, those of services in the second. */
const homes = ['/root', '/var', '/run', '/private/var'];

/** True if a path is a folder, or lies in it. */
export function isWithin(path: string, folder: string): boolean {
  return path === folder || path.startsWith(folder.endsWith(sep) ? folder : folder + sep);
}

/**
 * Where a path leads, `..` and symbolic links resolved; what isn't there yet is taken as it is written.
 * @throws Error of Node's own for what can't be looked at, links in a circle among it
 */
export function canonical(path: string): string {
  const whole = resolve(path);
  try {
    return realpathSync(whole);
  } catch (error) {
    if (!hasCode(error, 'ENOENT') || dirname(whole) === whole) throw error;
    return join(canonical(dirname(whole)), basename(whole));
  }
}

/** Where a path leads; as it is written, if that can't be told. */
export function leadsTo(path: string): string {
  try {
    return canonical(path);
  } catch {
    return path;
  }
}

/** The system's folder that a path leads into, or undefined if files may be made there. */
export function systemFolderOf(path: string, home: string | undefined): string | undefined {
  const place = canonical(path);
  const folder = systemFolders.find((each) => isWithin(place, each));
  if (folder === undefined || exceptions.some((each) => isWithin(place, each) && place !== each))
    return undefined;
  if (home === undefined || !homes.includes(folder)) return folder;
  const own = canonical(home);
  // A home that is the system's folder as a whole would allow all of it; root's own is one.
  const isHome = own === '/root' || (own !== folder && isWithin(own, folder));
  return isHome && isWithin(place, own) ? undefined : folder;
}
