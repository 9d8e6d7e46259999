import { homedir } from 'node:os';
import { dirname, isAbsolute, join, resolve } from 'node:path';
import { Failure } from '../core/errors.ts';
import type { KeyProblem, Template } from './schema.ts';
import type { ImageSpec } from './spec.ts';
import { readText } from './values.ts';

/** A location that is fetched from the network rather than read from a file. */
export function isUrl(location: string): boolean {
  return /^https?:\/\//i.test(location);
}

/** Reads where an image is to be had: an http(s) address, or the path of a file. */
export function readLocation(input: unknown): string {
  const text = readText(input);
  const scheme = /^([a-z][a-z0-9+.-]*):\/\//i.exec(text)?.[1];
  if (scheme === undefined) return text;
  if (!isUrl(text)) {
    throw new Failure('usage', `"${text}" can't be fetched by ${scheme}`, {
      hint: 'write an http or https address, or the path of a file',
    });
  }
  if (!URL.canParse(text)) throw new Failure('usage', `"${text}" is not an address`);
  return text;
}

const digestLengths: ReadonlyMap<string, number> = new Map([
  ['sha256', 64],
  ['sha512', 128],
]);

/** Reads a digest as `sha256:` or `sha512:` and hexadecimal digits; gives it in small letters. */
export function readDigest(input: unknown): string {
  const text = readText(input).toLowerCase();
  const [algorithm = '', digits = ''] = text.split(':');
  const length = digestLengths.get(algorithm);
  if (length !== undefined && digits.length === length && /^[0-9a-f]+$/.test(digits)) return text;
  const shown = text.length > 40 ? `${text.slice(0, 37)}...` : text;
  throw new Failure(
    'usage',
    length === undefined
      ? `"${shown}" is not a digest`
      : `"${shown}" is not a digest: ${algorithm} has ${length} hexadecimal digits, not ${digits.length}`,
    { hint: 'write sha256: or sha512: and the digits, as in the SHA256SUMS or SHA512SUMS beside the image' },
  );
}

/** The location with a path made absolute: `~` is the user's home, any other path is relative to `folder`. */
export function absoluteLocation(location: string, folder: string): string {
  if (isUrl(location)) return location;
  if (location === '~' || location.startsWith('~/')) return join(homedir(), location.slice(1));
  return isAbsolute(location) ? location : resolve(folder, location);
}

/** What contradicts each other in the keys of `image`. */
export function imageConflicts({ image }: Template): KeyProblem[] {
  const { location, digest, suite } = image;
  const key = (name: string, message: string): KeyProblem => ({ path: ['image', name], at: 'key', message });
  if (location === undefined) {
    return (['digest', 'arch', 'firmware'] as const)
      .filter((name) => image[name] !== undefined)
      .map((name) => key(name, 'belongs to an image with a location'));
  }
  const problems: KeyProblem[] = [];
  if (suite !== undefined)
    problems.push(key('suite', 'belongs to an image that zfsdev builds, not to one with a location'));
  if (digest === undefined && isUrl(location)) {
    const message = 'needs a digest beside it: nothing else tells whether what arrives is the image';
    problems.push({ path: ['image', 'location'], at: 'value', message });
  }
  return problems;
}

/**
 * Makes the image of a spec of that of a template.
 * @param file the template's, to whose folder paths are relative.
 * @throws Failure `usage` for a `--suite` that this image can't have.
 */
export function resolveImage(
  { image, pool }: Template,
  suite: 'trixie' | 'sid' | undefined,
  file: string,
): ImageSpec {
  const { location, digest, arch, firmware } = image;
  if (location === undefined)
    return { flavour: image.flavour ?? 'zfs', suite: suite ?? image.suite ?? 'trixie' };
  if (suite !== undefined) {
    throw new Failure(
      'usage',
      `--suite ${suite}: the template's image is ${location}, and has the suite it has`,
      {
        hint: 'leave --suite out',
      },
    );
  }
  return {
    flavour: image.flavour ?? (pool === undefined ? 'base' : 'zfs'),
    location: absoluteLocation(location, dirname(file)),
    ...(digest === undefined ? {} : { digest }),
    ...(arch === undefined ? {} : { arch }),
    firmware: firmware ?? 'uefi',
  };
}
