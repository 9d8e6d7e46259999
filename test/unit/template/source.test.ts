import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { Failure } from '../../../src/core/errors.ts';
import { findPackageRoot } from '../../../src/host/package-root.ts';
import { resolveTemplate } from '../../../src/template/resolve.ts';
import { parseTemplate, type TemplateSource } from '../../../src/template/source.ts';

const good = `description: mine
cpus: 2
memory: 1GiB
disk: 4GiB
pool:
  fileSize: 256MiB
  properties:
    quota: 200M
worstCase:
  base: 1.5GB
  pool: 512MiB
`;

function parse(text: string): TemplateSource {
  return parseTemplate(text, { template: 'mine.yaml', file: 'mine.yaml', builtIn: false });
}

/** The lines that the failure shows; the template is resolved as well, as some problems only show then. */
function problemsOf(text: string): string[] {
  try {
    resolveTemplate(parse(text));
  } catch (error) {
    if (!(error instanceof Failure)) throw error;
    expect(error.reason).toBe('template');
    expect(error.exitCode).toBe(2);
    expect(error.hint).toContain('docs/templates.md');
    return error.detail === undefined ? [error.message] : error.detail.split('\n');
  }
  return [];
}

/** The good template with a piece of it replaced. */
function changed(from: string, to: string): string {
  expect(good).toContain(from);
  return good.replace(from, to);
}

test('the good template has no problem', () => {
  expect(problemsOf(good)).toEqual([]);
});

describe('YAML that is no YAML', () => {
  test.each([
    ['a bracket left open', 'cpus: [1\nmemory: 2\n', 'mine.yaml:2:1: Flow sequence in block collection'],
    ['a key twice', changed('memory', 'cpus'), 'mine.yaml:3:1: Map keys must be unique'],
    ['a tab', 'pool:\n\tfileSize: 3\n', 'mine.yaml:2:1: Tabs are not allowed as indentation'],
    ['an alias to nothing', 'cpus: *two\n', 'mine.yaml:1:7: there is no anchor &two'],
    ['an unknown tag', 'cpus: !two 2\n', 'mine.yaml:1:7: Unresolved tag: !two'],
    [
      'a missing space',
      changed('cpus: 2', 'cpus 2'),
      'mine.yaml:2:1: Implicit keys need to be on a single line',
    ],
  ])('%s', (_, text, expected) => {
    expect(problemsOf(text)[0]).toContain(expected);
  });
});

describe('one problem, with file, line, column and key', () => {
  test.each([
    [
      'an unknown key',
      changed('memory:', 'memry:'),
      'mine.yaml:3:1: memry: is not a known key; did you mean "memory"?',
    ],
    [
      'an unknown inner key',
      changed('fileSize', 'filesize'),
      'mine.yaml:6:3: pool.filesize: is not a known key; did you mean "fileSize"?',
    ],
    [
      'an unknown part',
      changed('base:', 'bass: 1GB\n  base:'),
      'mine.yaml:10:3: worstCase.bass: is not a known key; did you mean "base"?',
    ],
    [
      'a far key',
      changed('cpus:', 'xyzzyplugh: 1\ncpus:'),
      'mine.yaml:2:1: xyzzyplugh: is not a known key; the keys here are name, description',
    ],
    [
      'an unknown property',
      changed('quota', 'quotta'),
      'mine.yaml:8:5: pool.properties.quotta: is no file system property of ZFS that a template can set; did you mean "quota"?',
    ],
    [
      'a wrong unit',
      changed('1GiB', '1GiX'),
      'mine.yaml:3:9: memory: "1GiX" has an unknown unit "GiX"; units are',
    ],
    [
      'a wrong unit inside',
      changed('256MiB', '256MeB'),
      'mine.yaml:6:13: pool.fileSize: "256MeB" has an unknown unit "MeB"',
    ],
    [
      'a wrong unit of a property',
      changed('200M', '200Q'),
      'mine.yaml:8:12: pool.properties.quota: "200Q" has an unknown unit "Q"',
    ],
    [
      'a negative size',
      changed('disk: 4GiB', 'disk: -4GiB'),
      'mine.yaml:4:7: disk: "-4GiB" is a negative size',
    ],
    [
      'a negative part',
      changed('1.5GB', '-1.5GB'),
      'mine.yaml:10:9: worstCase.base: "-1.5GB" is a negative size',
    ],
    ['a negative number', changed('disk: 4GiB', 'disk: -4'), 'mine.yaml:4:7: disk: "-4" is a negative size'],
    [
      'no size',
      changed('disk: 4GiB', 'disk: [4GiB]'),
      'mine.yaml:4:7: disk: must be a size such as 512MiB or 4GiB, not a list',
    ],
    [
      'words for a number',
      changed('cpus: 2', 'cpus: two'),
      'mine.yaml:2:7: cpus: must be a whole number, not "two"',
    ],
    [
      'half a processor',
      changed('cpus: 2', 'cpus: 1.5'),
      'mine.yaml:2:7: cpus: must be a whole number, not 1.5',
    ],
    ['no processor', changed('cpus: 2', 'cpus: 0'), 'mine.yaml:2:7: cpus: 0 is not between 1 and 256'],
    [
      'too many processors',
      changed('cpus: 2', 'cpus: 257'),
      'mine.yaml:2:7: cpus: 257 is not between 1 and 256',
    ],
    ['an empty value', changed('cpus: 2', 'cpus:'), 'mine.yaml:2:1: cpus: must be a whole number, not empty'],
    [
      'little memory',
      changed('1GiB', '255MiB'),
      'mine.yaml:3:9: memory: 255MiB is too small: memory must be at least 256MiB',
    ],
    ['bytes by mistake', changed('1GiB', '2'), 'mine.yaml:3:9: memory: 2B is too small'],
    [
      'small pool files',
      changed('256MiB', '32MiB'),
      'mine.yaml:6:13: pool.fileSize: 32MiB is too small: the size of a file of the pool must be at least 64MiB',
    ],
    [
      'a text for a map',
      changed('pool:\n  fileSize: 256MiB\n  properties:\n    quota: 200M', 'pool: big'),
      'mine.yaml:5:7: pool: must be a map with the keys name, layout',
    ],
    ['a list for a map', '- cpus: 2\n', 'mine.yaml:1:1: must be a map, not a list'],
    ['an empty file', '', 'mine.yaml:1:1: must be a map with the keys name, description'],
    ['a key left out', changed('disk: 4GiB\n', ''), 'mine.yaml:1:1: disk: is missing'],
    ['an inner key left out', changed('  base: 1.5GB\n', ''), 'mine.yaml:9:1: worstCase.base: is missing'],
    [
      'an unknown driver',
      changed('cpus:', 'driver: qeum\ncpus:'),
      'mine.yaml:2:9: driver: must be one of qemu, lima, not "qeum"; did you mean "qemu"?',
    ],
    [
      'an unknown layout',
      changed('  fileSize', '  layout: raidz\n  fileSize'),
      'mine.yaml:6:11: pool.layout: must be mirror, not "raidz"',
    ],
    [
      'an unknown release',
      changed('cpus:', 'image: {suite: bookworm}\ncpus:'),
      'mine.yaml:2:16: image.suite: must be one of trixie, sid, not "bookworm"',
    ],
    [
      'a wrong name',
      changed('cpus:', 'name: ../mine\ncpus:'),
      'mine.yaml:2:7: name: "../mine" is not a name for an instance',
    ],
    [
      'a reserved pool name',
      changed('  fileSize', '  name: mirror1\n  fileSize'),
      'mine.yaml:6:9: pool.name: "mirror1" begins with a word that ZFS keeps for itself',
    ],
    [
      'a shell in a pool name',
      changed('  fileSize', '  name: a$(id)\n  fileSize'),
      'mine.yaml:6:9: pool.name: must be a letter followed by',
    ],
    [
      'a shell in a property',
      changed('quota: 200M', 'mountpoint: "/x y"'),
      'mine.yaml:8:17: pool.properties.mountpoint: must be letters, digits',
    ],
    [
      'autotrim as a word',
      changed('  fileSize', '  autotrim: yes\n  fileSize'),
      'mine.yaml:6:13: pool.autotrim: must be on or off, not "yes"',
    ],
  ])('%s', (_, text, expected) => {
    const problems = problemsOf(text).filter(
      (line) => !line.endsWith('memory: is missing') && !line.endsWith('fileSize: is missing'),
    );
    expect(problems).toHaveLength(1);
    expect(problems[0]?.slice(0, expected.length)).toBe(expected);
  });
});

describe('values that contradict each other', () => {
  test.each([
    [
      'parts that do not fit the disk',
      changed('disk: 4GiB', 'disk: 1GiB'),
      'mine.yaml:4:7: disk: 1GiB is too small: the worst-case parts sum up to 1.9 GiB (base 1.4 GiB + pool 512 MiB); the least that fits is 2GiB',
    ],
    [
      'a pool without ZFS',
      changed('pool:', 'image:\n  flavour: base\npool:'),
      'mine.yaml:7:1: pool: needs an image with ZFS, but image.flavour is base',
    ],
    [
      'a part smaller than the pool',
      changed('512MiB', '512MB'),
      'mine.yaml:11:9: worstCase.pool: 488 MiB is too small for the pool: 2 files of 256MiB take 512MiB',
    ],
    [
      'a quota larger than the pool',
      changed('200M', '300M'),
      'mine.yaml:8:12: pool.properties.quota: 300M is more than the pool, whose files have 256MiB',
    ],
    [
      'a part for no pool',
      changed('pool:\n  fileSize: 256MiB\n  properties:\n    quota: 200M\n', ''),
      'mine.yaml:7:3: worstCase.pool: there is no pool in this template',
    ],
    [
      'build tools without their part',
      changed('cpus:', 'buildTools: on\ncpus:'),
      'mine.yaml:2:1: buildTools: takes space on the disk: add the part "tools" to worstCase',
    ],
  ])('%s', (_, text, expected) => {
    expect(problemsOf(text)).toEqual([expected]);
  });
});

test('all problems are listed together, in the order of the file', () => {
  const text =
    'description: mine\ncpus: many\nmemry: 1GiB\ndisk: -4GiB\nworstCase: {base: 1.5GX, basement: 1GB}\n';
  expect(problemsOf(text).map((line) => line.split(': ').slice(0, 2).join(': '))).toEqual([
    'mine.yaml:1:1: memory',
    'mine.yaml:2:7: cpus',
    'mine.yaml:3:1: memry',
    'mine.yaml:4:7: disk',
    'mine.yaml:5:19: worstCase.base',
    'mine.yaml:5:26: worstCase.basement',
  ]);
});

test('contradictions are listed together, too', () => {
  const text = changed('disk: 4GiB', 'disk: 1GiB\nimage: {flavour: base}').replace('200M', '300M');
  expect(problemsOf(text).map((line) => line.split(': ').slice(0, 2).join(': '))).toEqual([
    'mine.yaml:4:7: disk',
    'mine.yaml:6:1: pool',
    'mine.yaml:9:12: pool.properties.quota',
  ]);
});

test('a failure carries the problems as data', () => {
  const failure = parse(good).fail([{ path: ['pool', 'fileSize'], at: 'key', message: 'is wrong' }]);
  expect(failure.data).toEqual({
    problems: [{ file: 'mine.yaml', line: 6, column: 3, key: 'pool.fileSize', message: 'is wrong' }],
  });
});

test('aliases that multiply without end are refused', () => {
  const levels = Array.from(
    { length: 8 },
    (_, i) => `k${i + 1}: &k${i + 1} [${`*k${i}, `.repeat(9)}*k${i}]\n`,
  );
  expect(problemsOf(`k0: &k0 [x, x]\n${levels.join('')}`)).toEqual([
    'mine.yaml:1:1: Excessive alias count indicates a resource exhaustion attack',
  ]);
});

test('the example in the docs is a good template', async () => {
  const page = await readFile(join(findPackageRoot(), 'docs', 'templates.md'), 'utf8');
  const example = /```yaml\n(.*?)```/s.exec(page)?.[1] ?? '';
  expect(problemsOf(example)).toEqual([]);
});
