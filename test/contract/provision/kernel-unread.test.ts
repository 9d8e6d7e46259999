import { readdirSync } from 'node:fs';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { KernelHouse, tree } from './kernel-house.ts';

let place: KernelHouse;
beforeEach(async () => {
  place = await KernelHouse.open();
});
afterEach(() => place.close());

const registers = 'drivers/gpu/drm/amd/include/asic_reg/one.h';

/** What a build for this processor reads, though it looks like what it does not. */
const read = [
  'Documentation/Kconfig',
  'Documentation/devicetree/bindings/Makefile',
  'arch/Kconfig',
  'arch/arm/crypto/Kconfig',
  'arch/x86/include/asm/io.h',
  'drivers/gpu/drm/amd/include/one.h',
  'tools/objtool/check.c',
];

const unread = [
  'Documentation/admin-guide/one.rst',
  'Documentation/devicetree/bindings/arm/one.yaml',
  'arch/arm/boot/dts/one.dts',
  'arch/um/include/asm/io.h',
  'tools/perf/builtin-top.c',
  'tools/testing/selftests/one.c',
];

describe("a kernel's source", () => {
  beforeEach(async () => {
    const files = Object.fromEntries([...read, ...unread, registers].map((name) => [name, ''] as const));
    await place.archive('in/source.tar', { ...tree, ...files });
  });

  /** Files of the unpacked source. */
  async function unpacked(asked: Readonly<Record<string, string>> = {}): Promise<string[]> {
    await place.play(asked);
    expect(await place.run('source')).toMatchObject({ exitCode: 0, stderr: '' });
    return readdirSync(place.path('src'), { recursive: true, withFileTypes: true })
      .filter((entry) => entry.isFile())
      .map((entry) => `${entry.parentPath}/${entry.name}`.slice(place.path('src').length + 1))
      .sort();
  }

  it('is unpacked without what no build for this processor reads', async () => {
    expect(await unpacked()).toEqual([...Object.keys(tree), ...read].sort());
  });

  it("is unpacked with AMD's registers if its driver is asked for", async () => {
    await place.put({ 'in/fragments/000': 'CONFIG_DRM=y\nCONFIG_DRM_AMDGPU=m\n' });
    expect(await unpacked()).toContain(registers);
  });

  it('is unpacked with them if nobody knows yet what is asked for', async () => {
    expect(await unpacked({ CONFIG: 'defconfig' })).toContain(registers);
  });
});

it('a configuration that turns the driver of AMD on by itself is refused, if its registers were left out', async () => {
  await place.put({
    'src/Kconfig': '',
    'in/config': 'CONFIG_LOCALVERSION="-test"\nCONFIG_DRM_AMDGPU=m\n',
  });
  await place.play({ CONFIG: 'file' });
  const { exitCode, stdout } = await place.run('config');
  expect(exitCode).toBe(1);
  expect(stdout).toMatch(
    /^! CONFIG_DRM_AMDGPU is on without having been asked for.*: ask for it in a fragment$/m,
  );
});
