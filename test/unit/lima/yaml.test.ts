import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { parseDocument } from 'yaml';
import { findPackageRoot } from '../../../src/host/package-root.ts';
import { generateLimaConfigs } from '../../../src/lima/generate.ts';
import { provisionFiles, readProvisionScripts } from '../../../src/lima/provision.ts';
import { limaVersionOption, type LimaVersion } from '../../../src/lima/version.ts';
import { limaFile, renderLima, renderLimaYaml } from '../../../src/lima/yaml.ts';
import { resolveSpec, type ResolveFlags } from '../../../src/template/resolve.ts';

const root = findPackageRoot();

interface LimaYaml {
  readonly images: readonly { readonly location: string; readonly arch: string; readonly digest?: string }[];
  readonly provision: readonly Readonly<Record<string, string>>[];
  readonly probes: readonly {
    readonly description: string;
    readonly script: string;
    readonly hint: string;
  }[];
  readonly message: string;
  readonly [key: string]: unknown;
}

async function render(
  template: string,
  flags: ResolveFlags = {},
  limaVersion?: LimaVersion,
): Promise<LimaYaml> {
  const document = parseDocument(await renderLima(await resolveSpec(template, flags), { limaVersion }));
  expect([...document.errors, ...document.warnings]).toEqual([]);
  return document.toJS() as LimaYaml;
}

describe('lima-configs/', () => {
  test('holds what is generated now; npm run generate rewrites it', async () => {
    const generated = await generateLimaConfigs();
    for (const [file, text] of generated) expect(await readFile(join(root, file), 'utf8'), file).toBe(text);
    const committed = (await readdir(join(root, 'lima-configs'))).map((file) => `lima-configs/${file}`);
    expect(committed.sort()).toEqual([...generated.keys()].sort());
  });

  test('has the four files', async () => {
    expect([...(await generateLimaConfigs()).keys()].sort()).toEqual([
      'lima-configs/zfs-combined.yaml',
      'lima-configs/zfs-kernel-build.yaml',
      'lima-configs/zfs-test-minimal.yaml',
      'lima-configs/zfs-test-small.yaml',
    ]);
  });
});

describe.each(['zfs-test', 'zfs-small', 'kernel-build', 'combined'])('%s', (template) => {
  test('has only keys that Lima knows, and none of the defaults that bite', async () => {
    const yaml = await render(template);
    expect(Object.keys(yaml)).toEqual([
      ...['minimumLimaVersion', 'cpus', 'memory', 'disk', 'images', 'mounts', 'containerd', 'plain'],
      ...['provision', 'probes', 'message'],
    ]);
    expect(yaml).toMatchObject({ mounts: [], containerd: { system: false, user: false }, plain: true });
    for (const entry of yaml.provision) expect(Object.keys(entry)).toEqual(['mode', 'script']);
    for (const probe of yaml.probes) {
      expect(Object.keys(probe)).toEqual(['description', 'mode', 'script', 'hint']);
      expect(probe.script).toMatch(/^#!\/bin\/sh\nset -eu\n/);
    }
  });

  test('pins both architectures, with a fallback to the latest', async () => {
    const { images } = await render(template);
    expect(images.map(({ arch, digest }) => [arch, digest !== undefined])).toEqual([
      ['x86_64', true],
      ['aarch64', true],
      ['x86_64', false],
      ['aarch64', false],
    ]);
    for (const { location, digest } of images) {
      expect(location).toMatch(digest === undefined ? /\/release\/ubuntu/ : /\/release-\d{8}\/ubuntu/);
      if (digest !== undefined) expect(digest).toMatch(/^sha256:[0-9a-f]{64}$/);
    }
  });

  test('embeds the scripts of provision/ as they are, none twice, none with a Go template', async () => {
    const spec = await resolveSpec(template);
    const { provision, probes } = await render(template);
    const scripts = provision.map(({ script }) => script);
    const own = spec.pool ? 1 : 0;
    expect(scripts.slice(own)).toEqual((await readProvisionScripts(spec)).map(({ text }) => text));
    for (const script of scripts) expect(script).toMatch(/^#!\/bin\/(ba)?sh\n/);
    expect(JSON.stringify([provision, probes])).not.toContain('{{');
  });

  test('says in its first lines how to make and use it', async () => {
    const spec = await resolveSpec(template);
    const text = await renderLima(spec);
    expect(text).toContain(
      `#   limactl create --name=${template} ${limaFile(spec)}\n#   limactl start ${template}\n`,
    );
    expect(text).toContain(`#   zfsdev render ${template} >${limaFile(spec)}\n`);
    expect(text).not.toMatch(/[ \t]\n/);
  });
});

test('what each template provisions, and in which order', async () => {
  const files = async (template: string): Promise<string[]> => provisionFiles(await resolveSpec(template));
  expect(await files('zfs-test')).toEqual(['zfs-packages.sh', 'pool.sh']);
  expect(await files('kernel-build')).toEqual(['build-tools.sh']);
  expect(await files('combined')).toEqual(['zfs-packages.sh', 'pool.sh', 'build-tools.sh']);
});

test('zfs-test: sizes, settings, probe and message', async () => {
  const yaml = await render('zfs-test', { cpus: 3, poolSize: '1GiB' });
  expect(yaml).toMatchObject({ cpus: 3, memory: '2GiB', disk: '6GiB' });
  // The settings have to be there before the script that reads them.
  expect(yaml.provision[0]?.['script']).toContain("cat >/etc/zfsdev/pool.conf <<'EOF'\nPOOL_NAME=testpool\n");
  expect(yaml.provision[0]?.['script']).toMatch(/\nPOOL_FILE_SIZE=1073741824\n[^]*\nEOF\n$/);
  expect(yaml.probes.map(({ description }) => description)).toEqual(['the pool testpool is ONLINE']);
  expect(yaml.probes[0]?.hint).toContain('/var/log/cloud-init-output.log');
  expect(yaml.message).toContain('limactl shell {{.Name}} sudo zpool status testpool\n');
});

describe('for one version of Lima', () => {
  const settings = async (template: string, version: string): Promise<LimaYaml> =>
    render(template, {}, limaVersionOption(version));

  test.each(['1.0', 'v1.0.7', '1.1.0-rc.1'])(
    '%s, which has no mode data, is what fits all',
    async (version) => {
      const yaml = await settings('zfs-test', version);
      expect(yaml).toEqual(await render('zfs-test'));
      expect(yaml['minimumLimaVersion']).toBe('1.0.0');
    },
  );

  test.each(['1.1', '1.1.0', '2.0.3', '2.2.0-153-gabcdef0', '10.0'])(
    '%s is told the settings as data, and what reads them only then',
    async (version) => {
      const yaml = await settings('zfs-test', version);
      const [data, ...scripts] = yaml.provision;
      expect(data).toMatchObject({ mode: 'data', path: '/etc/zfsdev/pool.conf', owner: 'root:root' });
      // Lima reads the permissions as a text in octal.
      expect(data?.['permissions']).toBe('644');
      const written = (await render('zfs-test')).provision[0]?.['script'];
      expect(written).toContain(`<<'EOF'\n${data?.['content']}EOF\n`);
      const fitAll = await render('zfs-test');
      expect({ ...yaml, provision: scripts }).toEqual({
        ...fitAll,
        minimumLimaVersion: '1.1.0',
        provision: fitAll.provision.slice(1),
      });
    },
  );

  test('asks for no later Lima than it needs: without a pool there is no data', async () => {
    expect(await settings('kernel-build', '2.2.0')).toEqual(await render('kernel-build'));
  });

  test('says how it was made, and not that it is a file of lima-configs/', async () => {
    const text = await renderLima(await resolveSpec('zfs-test'), {
      limaVersion: limaVersionOption('v2.2.0'),
    });
    expect(text).toContain('#   zfsdev render zfs-test --lima-version 2.2.0 >zfs-test.lima.yaml\n');
    expect(text).toContain('#   limactl create --name=zfs-test zfs-test.lima.yaml\n');
  });

  test.each(['0.23.2', '0.9', '1.0.0-beta.0'])('%s is too old, and what to do is said', (version) => {
    expect(() => limaVersionOption(version)).toThrow(
      expect.objectContaining({
        reason: 'usage',
        message: `Lima ${version} is too old: 1.0.0 or later is needed`,
        hint: expect.stringContaining('install a later one') as string,
      }),
    );
  });

  test.each(['', 'latest', '2.x', '1.2.3.4', '2.2.0 ', 'lima 2.2.0', '-1'])('%j is no version', (version) => {
    expect(() => limaVersionOption(version)).toThrow(`"${version}" is not a version of Lima`);
  });
});

test('kernel-build: no pool, tools probed', async () => {
  const yaml = await render('kernel-build');
  expect(yaml.provision.map(({ mode }) => mode)).toEqual(['system']);
  expect(yaml.probes.map(({ description }) => description)).toEqual([
    'the tools of a kernel build are there',
  ]);
  expect(yaml.message).not.toContain('zpool');
});

test('a Go template in a script is a bug, and said so', async () => {
  const spec = await resolveSpec('kernel-build');
  const script = { file: 'x.sh', text: '#!/bin/sh\ndocker ps --format "{{.ID}}"\n' };
  expect(() => renderLimaYaml(spec, [script])).toThrow('Lima would take this for a Go template: docker ps');
});

test('a script that is missing is a failure', async () => {
  const spec = await resolveSpec('zfs-test');
  await expect(readProvisionScripts(spec, join(root, 'nowhere'))).rejects.toMatchObject({ reason: 'files' });
});
