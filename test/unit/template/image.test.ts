import { homedir } from 'node:os';
import { describe, expect, test } from 'vitest';
import { Failure } from '../../../src/core/errors.ts';
import { resolveTemplate, type ResolveFlags } from '../../../src/template/resolve.ts';
import { parseTemplate } from '../../../src/template/source.ts';
import { formatSpec, parseSpec, type Spec } from '../../../src/template/spec.ts';

const sha256 = `sha256:${'ab'.repeat(32)}`;
const address = 'https://cloud.debian.org/images/debian-13-genericcloud-amd64.qcow2';

function specOf(image: string, { pool = true, ...flags }: ResolveFlags & { pool?: boolean } = {}): Spec {
  const text = [
    'description: mine',
    'cpus: 2',
    'memory: 1GiB',
    'disk: 4GiB',
    `image: ${image}`,
    ...(pool ? ['pool: {fileSize: 256MiB}'] : []),
    'worstCase: {base: 1.5GB}',
    '',
  ].join('\n');
  const file = '/templates/mine.yaml';
  return resolveTemplate(parseTemplate(text, { template: file, file, builtIn: false }), flags);
}

function problemsOf(image: string, flags?: ResolveFlags): string[] {
  try {
    specOf(image, flags);
  } catch (error) {
    if (!(error instanceof Failure)) throw error;
    expect(error.exitCode).toBe(2);
    return (error.detail ?? error.message).split('\n');
  }
  return [];
}

describe('an image with a location', () => {
  test('is fetched from an address, told by its digest', () => {
    expect(specOf(`{location: "${address}", digest: "${sha256.toUpperCase()}"}`).image).toEqual({
      flavour: 'zfs',
      location: address,
      digest: sha256,
      firmware: 'uefi',
    });
  });

  test.each([
    ['./images/my.qcow2', '/templates/images/my.qcow2'],
    ['my.qcow2', '/templates/my.qcow2'],
    ['/srv/my.qcow2', '/srv/my.qcow2'],
    ['~/my.qcow2', `${homedir()}/my.qcow2`],
  ])('is the file %s, seen from the template', (location, path) => {
    expect(specOf(`{location: ${location}}`).image).toMatchObject({ location: path });
  });

  test('gets ZFS for a pool, or because it was asked for', () => {
    expect(specOf('{location: /my.qcow2}').image.flavour).toBe('zfs');
    expect(specOf('{location: /my.qcow2}', { pool: false }).image.flavour).toBe('base');
    expect(specOf('{location: /my.qcow2, flavour: zfs}', { pool: false }).image.flavour).toBe('zfs');
  });

  test('takes firmware and architecture, and comes back from spec.json', () => {
    const spec = specOf('{location: /my.qcow2, firmware: bios, arch: x86_64}');
    expect(spec.image).toMatchObject({ firmware: 'bios', arch: 'x86_64' });
    expect(parseSpec(formatSpec(spec))).toEqual(spec);
  });
});

describe('what is wrong with an image is told where it stands', () => {
  const at = (column: number, rest: string): string => `/templates/mine.yaml:5:${column}: ${rest}`;

  test.each([
    [
      `{location: "${address}"}`,
      at(
        19,
        'image.location: needs a digest beside it: nothing else tells whether what arrives is the image',
      ),
    ],
    [
      '{location: "ftp://here/x.img"}',
      at(
        19,
        'image.location: "ftp://here/x.img" can\'t be fetched by ftp; write an http or https address, or the path of a file',
      ),
    ],
    ['{location: ""}', at(19, 'image.location: must not be empty')],
    [
      '{location: /x, suite: sid}',
      at(23, 'image.suite: belongs to an image that zfsdev builds, not to one with a location'),
    ],
    [`{digest: "${sha256}"}`, at(9, 'image.digest: belongs to an image with a location')],
    ['{firmware: uefi}', at(9, 'image.firmware: belongs to an image with a location')],
    [
      '{location: /x, firmware: efi}',
      at(33, 'image.firmware: must be one of uefi, bios, not "efi"; did you mean "uefi"?'),
    ],
    [
      '{location: /x, flavour: base}',
      '/templates/mine.yaml:6:1: pool: needs an image with ZFS, but image.flavour is base',
    ],
  ])('%s', (image, problem) => {
    expect(problemsOf(image)).toEqual([problem]);
  });

  test.each([
    ['sha256:abc', 'is not a digest: sha256 has 64 hexadecimal digits, not 3'],
    [`md5:${'0'.repeat(32)}`, 'is not a digest'],
    [`sha512:${'g'.repeat(128)}`, 'is not a digest'],
  ])('the digest %s', (digest, words) => {
    expect(problemsOf(`{location: /x, digest: "${digest}"}`)[0]).toContain(words);
  });

  test('--suite', () => {
    expect(problemsOf('{location: /x}', { suite: 'sid' })[0]).toContain(
      "--suite sid: the template's image is /x",
    );
  });
});
