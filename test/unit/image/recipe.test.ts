import { describe, expect, test } from 'vitest';
import {
  composeRecipe,
  debianArchitecture,
  imageBuildClaims,
  recipeOf,
  type RecipeFile,
} from '../../../src/image/recipe.ts';

const file = (path: string, text: string, executable = false): RecipeFile => ({
  path,
  content: Buffer.from(text),
  executable,
});
const parts = {
  flavour: 'zfs',
  suite: 'trixie',
  architecture: 'amd64',
  files: [
    file('init', 'one', true),
    file('kernel-hook.sh', 'two', true),
    file('files/etc/a', 'three'),
    file('share-modules.sh', 'four'),
  ],
} as const;
const base = composeRecipe(parts);
const changed = (index: number, replacement: RecipeFile): ReturnType<typeof composeRecipe> =>
  composeRecipe({ ...parts, files: parts.files.map((old, at) => (at === index ? replacement : old)) });

describe('composeRecipe', () => {
  test('gives the same digests for the same parts', () => {
    expect(composeRecipe(parts)).toEqual(base);
    expect(base.digest).toMatch(/^[0-9a-f]{64}$/);
    expect(base.kernelDigest).not.toBe(base.digest);
  });

  test.each([
    ['the suite', composeRecipe({ ...parts, suite: 'sid' })],
    ['the architecture', composeRecipe({ ...parts, architecture: 'arm64' })],
    ['the flavour', composeRecipe({ ...parts, flavour: 'base' })],
    ["the kernel stage's hook", changed(1, file('kernel-hook.sh', 'other', true))],
    ['what compiles modules for shares', changed(3, file('share-modules.sh', 'other'))],
  ])('%s changes both digests', (_, other) => {
    expect(other.digest).not.toBe(base.digest);
    expect(other.kernelDigest).not.toBe(base.kernelDigest);
  });

  test.each([
    ['content', changed(2, file('files/etc/a', 'other'))],
    ['a name', changed(2, file('files/etc/b', 'three'))],
    ['a permission', changed(2, file('files/etc/a', 'three', true))],
    ['a package of the tools', composeRecipe({ ...parts, tools: ['flex'] })],
    ['a file more', composeRecipe({ ...parts, files: [...parts.files, file('files/etc/z', '')] })],
  ])('%s of the guest changes the image, and the compiled module stays', (_, other) => {
    expect(other.digest).not.toBe(base.digest);
    expect(other.kernelDigest).toBe(base.kernelDigest);
  });

  test('compiles no ZFS for flavour base, and what shares take for all', () => {
    const { packages, kernelPackages } = composeRecipe({ ...parts, flavour: 'base' });
    expect([...packages, ...kernelPackages].filter((name) => /zfs/.test(name))).toEqual([]);
    for (const found of [kernelPackages, base.kernelPackages])
      expect(found).toEqual(expect.arrayContaining(['linux-headers-cloud-amd64', 'linux-source', 'make']));
    expect(packages.filter((name) => /linux-|make/.test(name))).toEqual([]);
    expect(base.kernelPackages).toContain('zfs-dkms');
    expect(base.packages).toContain('zfsutils-linux');
  });
});

describe('flavour cloud', () => {
  const cloud = composeRecipe({ ...parts, flavour: 'cloud' });

  test('takes the compiled module of flavour zfs, and is another image', () => {
    expect(cloud.kernelDigest).toBe(base.kernelDigest);
    expect(cloud.kernelPackages).toEqual(base.kernelPackages);
    expect(cloud.kernelFlavour).toBe('zfs');
    expect(cloud.digest).not.toBe(base.digest);
  });

  test('has what Lima asks of a guest, and ZFS', () => {
    const needed = ['cloud-init', 'cloud-guest-utils', 'sudo', 'openssh-server', 'rsync', 'systemd-resolved'];
    expect(cloud.packages).toEqual(expect.arrayContaining([...needed, 'zfsutils-linux']));
  });

  test('is packed with tools that do not stay in it, and no other flavour needs', () => {
    expect(cloud.buildPackages).toContain('systemd-ukify');
    expect(cloud.packages.filter((name) => cloud.buildPackages.includes(name))).toEqual([]);
    expect(base.buildPackages).toEqual([]);
  });

  test('shares hooks and settings of apt, but nothing that waits for a seed of zfsdev', async () => {
    const pathsOf = async (flavour: 'zfs' | 'cloud'): Promise<string[]> =>
      (await recipeOf({ flavour, suite: 'trixie' }, { architecture: 'amd64' })).files.map(({ path }) => path);
    const [zfs, own] = await Promise.all([pathsOf('zfs'), pathsOf('cloud')]);
    expect(own).toEqual([...own].sort());
    expect(new Set(own).size).toBe(own.length);
    expect(own).toEqual(
      expect.arrayContaining([
        'init',
        'kernel-hook.sh',
        'root-hook.sh',
        'root-lib.sh',
        'share-modules.sh',
        'files/etc/default/locale',
      ]),
    );
    expect(own.filter((path) => zfs.includes(path) && path.startsWith('files/')).sort()).toEqual([
      'files/etc/apt/apt.conf.d/90zfsdev',
      'files/etc/systemd/system.conf.d/zfsdev.conf',
    ]);
    expect(zfs.some((path) => path.includes('cloud'))).toBe(false);
  });

  test('has the very kernel of flavour zfs with the files as installed', async () => {
    const [zfs, own] = await Promise.all(
      (['zfs', 'cloud'] as const).map((flavour) =>
        recipeOf({ flavour, suite: 'trixie' }, { architecture: 'amd64' }),
      ),
    );
    expect(own?.kernelDigest).toBe(zfs?.kernelDigest);
    expect(own?.digest).not.toBe(zfs?.digest);
  });
});

describe('recipeOf', () => {
  test('reads what is installed: scripts can be executed, settings can not', async () => {
    const { files } = await recipeOf({ flavour: 'zfs', suite: 'trixie' }, { architecture: 'amd64' });
    const executable = new Map(files.map(({ path, executable: bit }) => [path, bit]));
    expect(executable.get('init')).toBe(true);
    expect(executable.get('pool.sh')).toBe(true);
    expect(executable.get('mounts.sh')).toBe(true);
    expect(executable.get('kernel-hook.sh')).toBe(true);
    expect(executable.get('root-hook.sh')).toBe(true);
    expect(executable.get('files/etc/systemd/system/zfsdev-ready.service')).toBe(false);
    expect([...executable.keys()]).toEqual([...executable.keys()].sort());
  });

  test('says what is wrong with an installation without the files', async () => {
    await expect(
      recipeOf({ flavour: 'zfs', suite: 'trixie' }, { architecture: 'amd64', provision: '/nonexistent' }),
    ).rejects.toMatchObject({ reason: 'files', hint: 'install zfsdev again' });
  });
});

test('debianArchitecture knows two, and names the way out for others', () => {
  expect([debianArchitecture('x64'), debianArchitecture('arm64')]).toEqual(['amd64', 'arm64']);
  expect(() => debianArchitecture('ppc64')).toThrow(/ppc64/);
});

test('a build claims room where it works and where the image stays', () => {
  const claims = imageBuildClaims('/home/me/.zfsdev/images', '/var/tmp');
  expect(claims.map(({ path, allocated }) => [path, allocated])).toEqual([
    ['/var/tmp', 0],
    ['/home/me/.zfsdev/images', 0],
  ]);
  expect(claims.every(({ bound }) => Number.isSafeInteger(bound) && bound > 0)).toBe(true);
});
