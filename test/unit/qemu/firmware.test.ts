import { describe, expect, test } from 'vitest';
import { parseDescriptor } from '../../../src/qemu/firmware.ts';

/** As Debian's ovmf has it. */
const plain = {
  description: 'UEFI firmware for x86_64, without Secure Boot without SMM, with empty varstore',
  'interface-types': ['uefi'],
  mapping: {
    device: 'flash',
    executable: { filename: '/f/CODE.fd', format: 'raw' },
    'nvram-template': { filename: '/f/VARS.fd', format: 'raw' },
  },
  targets: [{ architecture: 'x86_64', machines: ['pc-i440fx-*', 'pc-q35-*'] }],
  features: ['acpi-s3', 'amd-sev', 'verbose-dynamic'],
  tags: [],
};

const parse = (descriptor: object): unknown => parseDescriptor(JSON.stringify(descriptor), 'x86_64');

describe('a firmware is taken by its descriptor', () => {
  test('with the variables that it begins with', () => {
    expect(parse(plain)).toEqual({
      code: { path: '/f/CODE.fd', format: 'raw' },
      variables: { path: '/f/VARS.fd', format: 'raw' },
    });
  });

  test('or without any, where it keeps none', () => {
    const { executable } = plain.mapping;
    const stateless = { device: 'flash', mode: 'stateless', executable: { ...executable, format: 'qcow2' } };
    expect(parse({ ...plain, mapping: stateless })).toEqual({
      code: { path: '/f/CODE.fd', format: 'qcow2' },
    });
  });

  test.each<[string, object]>([
    ['wants a mode of the processor that the machine lacks', { features: ['requires-smm', 'secure-boot'] }],
    ['starts only what is signed', { features: ['enrolled-keys'] }],
    ['is for another architecture', { targets: [{ architecture: 'aarch64', machines: ['virt-*'] }] }],
    ['is for another board', { targets: [{ architecture: 'x86_64', machines: ['microvm'] }] }],
    ['is a BIOS', { 'interface-types': ['bios'] }],
    ['is no flash memory', { mapping: { device: 'memory', filename: '/f/bios.bin' } }],
  ])('not one that %s', (_, change) => {
    expect(parse({ ...plain, ...change })).toBeUndefined();
  });

  test('a damaged one is passed over', () => {
    expect(parseDescriptor('{', 'x86_64')).toBeUndefined();
    expect(parseDescriptor('[]', 'x86_64')).toBeUndefined();
  });

  test('arm64 has its own board', () => {
    const arm = { ...plain, targets: [{ architecture: 'aarch64', machines: ['virt-*'] }] };
    expect(parseDescriptor(JSON.stringify(arm), 'aarch64')).toMatchObject({ code: { path: '/f/CODE.fd' } });
  });
});
