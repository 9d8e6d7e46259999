import { isCloudImage, type Spec } from '../template/spec.ts';

/** An entry of Lima's `images`. */
export interface LimaImage {
  readonly location: string;
  readonly arch: 'x86_64' | 'aarch64';
  readonly digest?: string;
}

/** The images of a spec: its own if it names one, else Ubuntu's, after one that is there already. */
export function imagesOf({ image }: Pick<Spec, 'image'>, local: string | undefined): readonly LimaImage[] {
  const arch = process.arch === 'arm64' ? 'aarch64' : 'x86_64';
  if (!isCloudImage(image))
    return local === undefined ? ubuntuMinimal : [{ location: local, arch }, ...ubuntuMinimal];
  const { location, digest } = image;
  return [{ location, arch: image.arch ?? arch, ...(digest === undefined ? {} : { digest }) }];
}

const releases = 'https://cloud-images.ubuntu.com/minimal/releases/noble';
const file = (arch: string): string => `ubuntu-24.04-minimal-cloudimg-${arch}.img`;

/**
 * Ubuntu's minimal cloud image, which has a ready ZFS module in its archive, for both architectures. Lima takes the
 * first entry of its architecture that can be had: the dated and pinned one, and when Ubuntu has removed that after
 * some months, the latest.
 */
export const ubuntuMinimal: readonly LimaImage[] = [
  {
    location: `${releases}/release-20260716/${file('amd64')}`,
    arch: 'x86_64',
    digest: 'sha256:d99d1abe3284e568161b3b7dabfbd6cf67956a7f4274b13842f10aa9c7807a2c',
  },
  {
    location: `${releases}/release-20260716/${file('arm64')}`,
    arch: 'aarch64',
    digest: 'sha256:7e938df669e3b1923595eeda97aa28569350c5283e05a835cc912a2486a54934',
  },
  { location: `${releases}/release/${file('amd64')}`, arch: 'x86_64' },
  { location: `${releases}/release/${file('arm64')}`, arch: 'aarch64' },
];
