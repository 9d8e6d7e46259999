import { createHash } from 'node:crypto';
import { readdir, readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { GiB, MiB } from '../core/bytes.ts';
import { Failure, messageOf } from '../core/errors.ts';
import { findPackageRoot } from '../host/package-root.ts';

/** `cloud` is `zfs` as a disk that boots by itself and is set up by cloud-init: for Lima, and whoever else reads a seed. */
export const flavours = ['zfs', 'base', 'cloud'] as const;
export type Flavour = (typeof flavours)[number];
export type Suite = 'trixie' | 'sid';
/** Debian's name of an architecture. */
export type DebianArchitecture = 'amd64' | 'arm64';

/** Raised whenever an older zfsdev could not use a newer image, or the other way round. */
export const imageFormat = 1;

/** A file of `provision/` that goes into the build; `path` is relative to the build's folder. */
export interface RecipeFile {
  readonly path: string;
  readonly content: Buffer;
  readonly executable: boolean;
}

/** All that determines an image. */
export interface Recipe {
  readonly flavour: Flavour;
  /** The tools of a kernel build are in it. */
  readonly tools: boolean;
  /** What the kernel stage is told: flavours with the same kernel share its archive. */
  readonly kernelFlavour: 'zfs' | 'base';
  readonly suite: Suite;
  readonly architecture: DebianArchitecture;
  /** Packages of the stage that is thrown away: the kernel, and what compiles modules for it. */
  readonly kernelPackages: readonly string[];
  readonly packages: readonly string[];
  /** Packages that are installed beside those for the time of packing alone. */
  readonly buildPackages: readonly string[];
  readonly components: readonly string[];
  readonly files: readonly RecipeFile[];
  /** sha256 in hex of what determines the kernel and its modules. */
  readonly kernelDigest: string;
  /** sha256 in hex of everything: the image's name. The mirror is no part of it, the archive is the same everywhere. */
  readonly digest: string;
}

const guestPackages = [
  ...['systemd', 'systemd-sysv', 'udev', 'kmod', 'busybox-static', 'e2fsprogs', 'qemu-guest-agent'],
  ...[
    'openssh-server',
    'openssh-sftp-server',
    'iproute2',
    'iputils-ping',
    'netbase',
    'ca-certificates',
    'curl',
  ],
  // For the person in the shell, and for zfsdev's own daemon.
  ...['less', 'procps', 'nano', 'rsync', 'zstd', 'nodejs'],
];

const cloudPackages = [
  ...['cloud-init', 'cloud-guest-utils', 'sudo', 'systemd-resolved', 'libnss-myhostname'],
  // Lima waits for the user's own systemd before it runs the user's scripts.
  ...['dbus', 'libpam-systemd'],
  // cloud-init wants some DHCP client; this one is busybox.
  'udhcpc',
];

/** What makes a kernel and an initrd one EFI program, and the file system it lies in. */
const bootPackages = ['systemd-ukify', 'systemd-boot-efi', 'mtools'];

function runtimePackages(flavour: Flavour): string[] {
  switch (flavour) {
    case 'base':
      return guestPackages;
    case 'zfs':
      // qemu-img reads the disks that volumes are made of.
      return [...guestPackages, 'zfsutils-linux', 'qemu-utils'];
    case 'cloud':
      return [...guestPackages, 'zfsutils-linux', 'qemu-utils', ...cloudPackages];
  }
}

function kernelPackages(flavour: Recipe['kernelFlavour'], architecture: DebianArchitecture): string[] {
  const kernel = [
    // initramfs-tools: the kernel's package wants something of its kind, and this one needs the least.
    ...[`linux-image-cloud-${architecture}`, 'initramfs-tools', 'kmod', 'xz-utils', 'zstd'],
    // The headers bring the compiler, and the source what the kernel lacks for shares.
    ...[`linux-headers-cloud-${architecture}`, 'linux-source', 'make'],
  ];
  return flavour === 'zfs' ? [...kernel, 'zfs-dkms'] : kernel;
}

/** What of the host's architectures Debian calls what. @throws Failure `unsupported` for any other. */
export function debianArchitecture(arch: string = process.arch): DebianArchitecture {
  if (arch === 'x64') return 'amd64';
  if (arch === 'arm64') return 'arm64';
  throw new Failure('unsupported', `images are built for amd64 and arm64, not for ${arch}`, {
    hint: 'use --driver lima',
  });
}

/** What is asked for of an image. */
export interface WantedImage {
  readonly flavour: Flavour;
  readonly suite: Suite;
  /** With the tools of a kernel build: installing them takes an emulated machine minutes at each build. No if left out. */
  readonly tools?: boolean;
}

/**
 * Puts a recipe together from what is asked for and the files of `provision/`.
 * @throws Failure `files` if the installation is damaged, `unsupported` for an architecture without images.
 */
export async function recipeOf(
  wanted: WantedImage,
  options: { readonly architecture?: DebianArchitecture; readonly provision?: string } = {},
): Promise<Recipe> {
  const architecture = options.architecture ?? debianArchitecture();
  const provision = options.provision ?? join(findPackageRoot(), 'provision');
  const { flavour, suite, tools = false } = wanted;
  const files = await readFiles(flavour, provision);
  return composeRecipe({
    flavour,
    suite,
    architecture,
    files,
    tools: tools ? await buildTools(provision) : [],
  });
}

/** The pure part of `recipeOf`. */
export function composeRecipe({
  tools = [],
  ...parts
}: Pick<Recipe, 'flavour' | 'suite' | 'architecture' | 'files'> & {
  /** Packages of a kernel build's tools; none without. */
  readonly tools?: readonly string[];
}): Recipe {
  const components = ['main', 'contrib'];
  const { flavour, suite, architecture } = parts;
  const kernelFlavour = flavour === 'base' ? 'base' : 'zfs';
  const forKernel = {
    imageFormat,
    flavour: kernelFlavour,
    suite,
    architecture,
    components,
    packages: kernelPackages(kernelFlavour, architecture),
    files: parts.files.filter(({ path }) => kernelFiles.has(path)).map(fingerprint),
  } as const;
  const kernelDigest = sha256(JSON.stringify(forKernel));
  const packages = [...new Set([...runtimePackages(flavour), ...tools])];
  const buildPackages = flavour === 'cloud' ? bootPackages : [];
  const files = parts.files.map(fingerprint);
  const digest = sha256(JSON.stringify({ flavour, kernelDigest, packages, buildPackages, files }));
  const installed = { kernelPackages: forKernel.packages, packages, buildPackages };
  return { ...parts, tools: tools.length > 0, kernelFlavour, components, ...installed, kernelDigest, digest };
}

function sha256(data: string | Uint8Array): string {
  return createHash('sha256').update(data).digest('hex');
}

function fingerprint({ path, content, executable }: RecipeFile): readonly [string, string, boolean] {
  return [path, sha256(content), executable];
}

/** The packages of provision/build-tools.sh, which installs them where there is a machine already. @throws Failure `files` */
export async function buildTools(provision: string): Promise<string[]> {
  const file = join(provision, 'build-tools.sh');
  const hint = 'install zfsdev again';
  let text: string;
  try {
    text = await readFile(file, 'utf8');
  } catch (error) {
    throw new Failure('files', `${file} can't be read: ${messageOf(error)}`, { hint, cause: error });
  }
  const found = /^packages='([^']+)'$/m.exec(text)?.[1];
  if (found) return found.split(/\s+/);
  throw new Failure('files', `${file} names no packages`, { hint });
}

/** Of `provision/image`, what makes the kernel and its modules. */
const kernelFiles: ReadonlySet<string> = new Set(['kernel-hook.sh', 'share-modules.sh']);

/** Of `provision/image`, what flavour cloud is made of too; the rest is for machines that zfsdev itself sets up. */
const sharedFiles: ReadonlySet<string> = new Set([
  ...kernelFiles,
  'root-lib.sh',
  'files/etc/apt/apt.conf.d/90zfsdev',
  'files/etc/systemd/system.conf.d/zfsdev.conf',
]);

/** Of `provision`, what the guest runs itself, and other machines' provisioning too. */
const guestScripts = ['pool.sh', 'mounts.sh'];

async function readFiles(flavour: Flavour, provision: string): Promise<RecipeFile[]> {
  try {
    const image = await readFolder(join(provision, 'image'));
    const found =
      flavour === 'cloud'
        ? [
            ...image.filter(({ path }) => sharedFiles.has(path)),
            ...(await readFolder(join(provision, 'cloud'))),
          ]
        : [
            ...image,
            ...(await Promise.all(guestScripts.map((name) => readOne(join(provision, name), name)))),
          ];
    return found.filter((file) => file !== undefined).sort((a, b) => (a.path < b.path ? -1 : 1));
  } catch (error) {
    throw new Failure('files', `the image's files can't be read: ${messageOf(error)}`, {
      hint: 'install zfsdev again',
      cause: error,
    });
  }
}

async function readFolder(folder: string): Promise<RecipeFile[]> {
  const names = await readdir(folder, { recursive: true });
  const found = await Promise.all(names.map((name) => readOne(join(folder, name), name)));
  return found.filter((file) => file !== undefined);
}

async function readOne(from: string, path: string): Promise<RecipeFile | undefined> {
  const info = await stat(from);
  if (!info.isFile()) return undefined;
  // A shell script may lose its bit on the way through npm or git on another system; its first bytes tell as well.
  const content = await readFile(from);
  return { path, content, executable: content.subarray(0, 2).toString() === '#!' };
}

/** Space that building an image takes at most, in the form of the budget's claims. */
export function imageBuildClaims(
  images: string,
  temporary: string,
): { readonly what: string; readonly path: string; readonly bound: number; readonly allocated: number }[] {
  return [
    // Measured: 0.9 GiB of toolchain root; to which come 0.3 of the kernel's source, as a package and unpacked from that.
    // Later 0.35 GiB of guest root, its 0.45 GiB disk and the kernel's archive.
    { what: 'building the image (temporary)', path: temporary, bound: 1.5 * GiB, allocated: 0 },
    { what: 'the image and its compiled module', path: images, bound: 320 * MiB, allocated: 0 },
  ];
}
