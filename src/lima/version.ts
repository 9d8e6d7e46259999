import { Failure } from '../core/errors.ts';
import { isAtLeast } from '../core/version.ts';

/** A version of Lima as numbers; a preview (`2.1.0-rc.1`) comes before the version it is named after. */
export interface LimaVersion {
  readonly numbers: string;
  readonly preview: boolean;
}

/** The oldest that is supported: the first that knows `minimumLimaVersion`, by which one that is too old says so itself. */
export const oldestLima = '1.0.0';
/** Where to get it. */
export const howToInstallLima = 'https://lima-vm.io/docs/installation/';

/** Reads what limactl or a person says: `2.2.0`, `v1.1`, `2.1.0-rc.1`; undefined if that is no version. */
export function parseLimaVersion(text: string): LimaVersion | undefined {
  const [, numbers, suffix = ''] = /^v?(\d+(?:\.\d+){0,2})([-+][\w.+-]+)?$/.exec(text) ?? [];
  return numbers === undefined ? undefined : { numbers, preview: /^-(alpha|beta|rc)\b/.test(suffix) };
}

/** True if a version of Lima has what came with another one, given as numbers. */
export function limaHas({ numbers, preview }: LimaVersion, since: string): boolean {
  return isAtLeast(numbers, since) && !(preview && isAtLeast(since, numbers));
}

/** The value of `--lima-version`. @throws Failure `usage` if it is none, or one that is not supported */
export function limaVersionOption(text: string): LimaVersion {
  const version = parseLimaVersion(text);
  if (!version) {
    throw new Failure('usage', `"${text}" is not a version of Lima`, {
      hint: 'write it as limactl --version tells it, for instance --lima-version 2.2.0',
    });
  }
  if (limaHas(version, oldestLima)) return version;
  throw new Failure('usage', `Lima ${text} is too old: ${oldestLima} or later is needed`, {
    hint: `install a later one (${howToInstallLima}), then give its version, or none: that is fit for all from ${oldestLima} on`,
  });
}
