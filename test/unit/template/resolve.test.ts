import { describe, expect, test } from 'vitest';
import { bytes, exactBytes, GiB, MiB, parseBytes } from '../../../src/core/bytes.ts';
import { Failure } from '../../../src/core/errors.ts';
import { renderPoolConf } from '../../../src/template/pool-conf.ts';
import { resolveSpec, resolveTemplate, type ResolveFlags } from '../../../src/template/resolve.ts';
import { parseTemplate } from '../../../src/template/source.ts';
import { formatSpec, parseSpec, worstCaseTotal, type Spec } from '../../../src/template/spec.ts';

const names = ['zfs-test', 'zfs-small', 'kernel-build', 'combined'];

function fromText(text: string, flags: ResolveFlags = {}, template = './mine.yaml'): Spec {
  return resolveTemplate(parseTemplate(text, { template, file: template, builtIn: false }), flags);
}

async function failureOf(work: Promise<unknown>): Promise<Failure> {
  const error: unknown = await work.then(
    () => undefined,
    (thrown: unknown) => thrown,
  );
  if (!(error instanceof Failure)) throw error instanceof Error ? error : new Error('nothing was thrown');
  return error;
}

describe('our templates', () => {
  test.each([
    ['zfs-test', 2, '2GiB', '4GiB', '3.0'],
    ['zfs-small', 2, '2GiB', '6GiB', '4.6'],
    ['kernel-build', 4, '4GiB', '15GiB', '12.0'],
    ['combined', 4, '4GiB', '16GiB', '13.0'],
  ])('%s: %i cpus, %s memory, %s disk, %s GB in the worst case', async (name, cpus, memory, disk, total) => {
    const spec = await resolveSpec(name);
    expect(spec).toMatchObject({ template: name, name, cpus, accelerator: 'auto' });
    expect([exactBytes(spec.memory), exactBytes(spec.disk)]).toEqual([memory, disk]);
    expect((worstCaseTotal(spec.worstCase) / 1e9).toFixed(1)).toBe(total);
    expect(spec.driver).toBeUndefined();
  });

  test('the parts of the worst case', async () => {
    const table = async (name: string): Promise<string[]> =>
      (await resolveSpec(name)).worstCase.map(({ part, size }) => `${part} ${size / 1e6}`);
    expect(await table('zfs-test')).toEqual(['base 1500', 'packages 200', 'pool 536.870912', 'headroom 800']);
    expect(await table('kernel-build')).toEqual([
      ...['base 1500', 'tools 500', 'source 2000', 'artifacts 6000', 'kernel 200', 'headroom 1800'],
    ]);
    expect(await table('combined')).toEqual([
      ...['base 1500', 'packages 200', 'tools 500', 'source 2000', 'artifacts 6000'],
      ...['pool 536.870912', 'headroom 2300'],
    ]);
  });

  test('the pool of zfs-test, as the guest reads it', async () => {
    const { pool } = await resolveSpec('zfs-test');
    if (!pool) throw new Error('zfs-test has no pool');
    expect(renderPoolConf(pool)).toBe(
      [
        'POOL_NAME=testpool',
        'POOL_LAYOUT=mirror',
        'POOL_FILE_COUNT=2',
        'POOL_FILE_SIZE=268435456',
        'POOL_ASHIFT=12',
        'POOL_AUTOTRIM=on',
        'POOL_PROPERTIES="compression=lz4 xattr=sa atime=off quota=200M"',
        '',
      ].join('\n'),
    );
  });

  test('zfs-small has no quota, kernel-build no pool', async () => {
    expect((await resolveSpec('zfs-small')).pool?.properties).toEqual({
      compression: 'lz4',
      xattr: 'sa',
      atime: 'off',
    });
    const build = await resolveSpec('kernel-build');
    expect(build.pool).toBeUndefined();
    expect(build).toMatchObject({ buildTools: true, image: { flavour: 'base' } });
  });
});

test('pool.conf refuses what a shell would interpret', async () => {
  const { pool } = await resolveSpec('zfs-test');
  if (!pool) throw new Error('zfs-test has no pool');
  expect(() => renderPoolConf({ ...pool, name: 'a;id' })).toThrow(RangeError);
  expect(() => renderPoolConf({ ...pool, properties: { 'a b': 'c' } })).toThrow(RangeError);
  expect(() => renderPoolConf({ ...pool, properties: { quota: '$(id)' } })).toThrow(RangeError);
});

describe('flags', () => {
  test('each wins over the template', async () => {
    const spec = await resolveSpec('zfs-test', {
      ...{ cpus: 4, memory: '3GiB', disk: '10GiB', name: 'other' },
      ...{ driver: 'lima', accelerator: 'tcg', suite: 'sid' },
    });
    expect(spec).toMatchObject({
      ...{ template: 'zfs-test', name: 'other', cpus: 4, memory: 3 * GiB, disk: 10 * GiB },
      ...{ driver: 'lima', accelerator: 'tcg', image: { suite: 'sid' } },
    });
  });

  test.each<[ResolveFlags, string]>([
    [{ cpus: 0 }, '--cpus: 0 is not between 1 and 256'],
    [{ cpus: 300 }, '--cpus: 300 is not between 1 and 256'],
    [{ memory: '128MiB' }, '--memory: 128MiB is too small: memory must be at least 256MiB'],
    [{ memory: '2GiX' }, '--memory: "2GiX" has an unknown unit "GiX"'],
    [{ disk: '-1GiB' }, '--disk: "-1GiB" is a negative size'],
    [{ disk: '0' }, '--disk: must not be 0'],
    [
      { poolSize: '1MiB' },
      '--pool-size: 1MiB is too small: the size of a file of the pool must be at least 64MiB',
    ],
    [{ name: 'a/b' }, '--name: "a/b" is not a name for an instance'],
    [{ driver: 'kvm' }, '--driver: must be one of qemu, lima, not "kvm"'],
    [{ accelerator: 'tgc' }, '--accel: must be one of auto, kvm, hvf, tcg, not "tgc"; did you mean "tcg"?'],
    [{ suite: 'woody' }, '--suite: must be one of trixie, sid, not "woody"'],
  ])('%j is refused', async (flags, message) => {
    const failure = await failureOf(resolveSpec('zfs-test', flags));
    expect(failure.reason).toBe('usage');
    expect(failure.message).toBe(message);
  });

  test('several wrong ones are told together', async () => {
    const failure = await failureOf(resolveSpec('zfs-test', { cpus: 0, memory: '1X', name: '-' }));
    expect(failure.message).toBe('3 options are wrong');
    expect(failure.detail?.split('\n').map((line) => line.split(':')[0])).toEqual([
      '--cpus',
      '--memory',
      '--name',
    ]);
  });

  test('a larger --disk mends a template that does not fit its own', () => {
    const text = 'description: d\ncpus: 1\nmemory: 1GiB\ndisk: 1GiB\nworstCase: {base: 2GiB}\n';
    expect(() => fromText(text)).toThrow('./mine.yaml:4:7: disk: 1GiB is too small');
    expect(fromText(text, { disk: '2GiB' }).disk).toBe(2 * GiB);
  });
});

describe('--pool-size', () => {
  test.each([
    ['zfs-test', '1GiB', '6GiB', '2GiB', '800M'],
    ['zfs-test', '256MiB', '4GiB', '512MiB', '200M'],
    ['zfs-test', '257MiB', '5GiB', '514MiB', '200M'],
    ['zfs-test', '512MiB', '5GiB', '1GiB', '400M'],
    ['zfs-test', '64MiB', '4GiB', '128MiB', '50M'],
    ['zfs-small', '2GiB', '8GiB', '4GiB', undefined],
    ['combined', '1GiB', '18GiB', '2GiB', '800M'],
  ])('%s with files of %s: disk %s, part %s, quota %s', async (template, poolSize, disk, part, quota) => {
    const spec = await resolveSpec(template, { poolSize });
    expect(spec.pool?.fileSize).toBe(parseBytes(poolSize));
    expect(exactBytes(spec.disk)).toBe(disk);
    expect(exactBytes(spec.worstCase.find((one) => one.part === 'pool')?.size ?? bytes(0))).toBe(part);
    expect(spec.pool?.properties['quota']).toBe(quota);
  });

  test('a template that allows its pool more than the files keeps the difference', () => {
    const text =
      'description: d\ncpus: 1\nmemory: 1GiB\ndisk: 4GiB\npool: {fileSize: 256MiB, files: 3}\n' +
      'worstCase: {base: 1GiB, pool: 1GiB}\n';
    const spec = fromText(text, { poolSize: '512MiB' });
    expect(spec.worstCase).toContainEqual({ part: 'pool', size: 1792 * MiB });
    expect(spec.disk).toBe(5 * GiB);
  });

  test('with a --disk that is large enough, that one counts', async () => {
    expect((await resolveSpec('zfs-test', { poolSize: '1GiB', disk: '5GiB' })).disk).toBe(5 * GiB);
  });

  test('with a --disk that is too small, it says what it would need', async () => {
    const failure = await failureOf(resolveSpec('zfs-test', { poolSize: '1GiB', disk: '4GiB' }));
    expect(failure.reason).toBe('usage');
    expect(failure.message).toBe(
      '--disk 4GiB is too small: the worst-case parts sum up to 4.33 GiB ' +
        '(base 1.4 GiB + packages 191 MiB + pool 2 GiB + headroom 763 MiB)',
    );
    expect(failure.hint).toBe('leave --disk out, and it is 6GiB; the least that fits is --disk 5GiB');
  });

  test('needs a pool', async () => {
    const failure = await failureOf(resolveSpec('kernel-build', { poolSize: '1GiB' }));
    expect(failure.reason).toBe('usage');
    expect(failure.message).toBe('--pool-size 1GiB: the template kernel-build has no pool');
  });
});

describe("a user's own template", () => {
  const minimal = 'description: d\ncpus: 1\nmemory: 1GiB\ndisk: 4GiB\n';

  test('gets defaults', () => {
    const spec = fromText(`${minimal}pool: {fileSize: 128MiB}\nworstCase: {headroom: 1GB, base: 1GB}\n`);
    expect(spec).toEqual({
      ...{ template: './mine.yaml', name: 'mine', description: 'd', accelerator: 'auto' },
      ...{ cpus: 1, memory: GiB, disk: 4 * GiB, image: { flavour: 'zfs', suite: 'trixie' } },
      pool: {
        ...{ name: 'testpool', layout: 'mirror', fileCount: 2, fileSize: 128 * MiB },
        ...{ ashift: 12, autotrim: true, properties: {} },
      },
      worstCase: [
        { part: 'base', size: 1e9 },
        { part: 'pool', size: 256 * MiB },
        { part: 'headroom', size: 1e9 },
      ],
    });
  });

  test('property values become what ZFS reads', () => {
    const spec = fromText(
      `${minimal}worstCase: {base: 1GB}\npool:\n  fileSize: 1GiB\n  properties:\n` +
        '    atime: false\n    copies: 2\n    quota: 200MB\n    refquota: 0.5GiB\n    reservation: none\n    org.me:x: y\n',
    );
    expect(spec.pool?.properties).toEqual({
      ...{
        atime: 'off',
        copies: '2',
        quota: '200000000',
        refquota: '512M',
        reservation: 'none',
        'org.me:x': 'y',
      },
    });
  });

  test('is named by its key, else its file; --name wins', () => {
    const text = `${minimal}worstCase: {base: 1GB}\n`;
    expect(fromText(text, {}, '/some/where/lab-1.yml').name).toBe('lab-1');
    expect(fromText(`name: named\n${text}`).name).toBe('named');
    expect(fromText(`name: named\n${text}`, { name: 'flag' }).name).toBe('flag');
    expect(() => fromText(text, {}, './My Lab.yaml')).toThrow(
      /can't be named after the file \.\/My Lab\.yaml/,
    );
    expect(fromText(text, { name: 'lab' }, './My Lab.yaml').name).toBe('lab');
  });
});

describe('spec.json', () => {
  test.each(names)('%s comes back as it was', async (name) => {
    const spec = await resolveSpec(name, { driver: 'qemu' });
    expect(parseSpec(formatSpec(spec))).toEqual(spec);
    expect(parseSpec(JSON.stringify(spec))).toEqual(spec);
  });

  test.each<[string, (text: string) => string, string]>([
    ['empty', () => '', 'its spec.json is damaged: '],
    ['cut off', (text) => text.slice(0, 100), 'its spec.json is damaged: '],
    ['no object', () => '[]', 'its spec.json is damaged: '],
    [
      'a negative size',
      (text) => text.replace(/"disk": \d+/, '"disk": -1'),
      'its spec.json is damaged: disk: ',
    ],
    [
      'a name with a path',
      (text) => text.replace('"name": "zfs-test"', '"name": "../x"'),
      'its spec.json is damaged: name: ',
    ],
    ['an unknown key', (text) => text.replace('"cpus"', '"cpu"'), 'its spec.json is damaged: '],
    [
      'a shell',
      (text) => text.replace('"lz4"', '"$(id)"'),
      'its spec.json is damaged: pool.properties.compression: ',
    ],
  ])('%s is a failure', async (_, damage, message) => {
    const text = damage(formatSpec(await resolveSpec('zfs-test')));
    const read = (): Spec => parseSpec(text);
    expect(read).toThrow(Failure);
    expect(read).toThrow(message);
  });
});
