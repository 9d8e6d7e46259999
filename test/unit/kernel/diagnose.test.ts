import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Failure } from '../../../src/core/errors.ts';
import { explainPhase } from '../../../src/kernel/diagnose.ts';

let folder: string;
let log: string;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'zfsdev-diagnose-'));
  log = join(folder, 'log');
});

afterAll(() => rm(folder, { recursive: true }));

async function explain(lines: readonly string[], told?: string): Promise<Failure> {
  await writeFile(log, `${lines.join('\n')}\n`);
  const place = { afterwards: ['go on: --resume', 'get rid of it'], anew: 'begin anew' };
  return explainPhase('make', 2, told, { log, ...place });
}

describe('a phase that failed', () => {
  it('shows the last 30 lines, the file of all of them, and how to go on', async () => {
    const lines = Array.from({ length: 100 }, (_, i) => `line ${i + 1}`);
    const { detail, hint, message } = await explain(lines, 'the kernel does not compile');
    expect(message).toBe('the kernel does not compile');
    expect(detail).toBe(`${lines.slice(70).join('\n')}\n\nthe whole log: ${log}`);
    expect(hint).toBe('go on: --resume\nget rid of it');
  });

  it.each<[string, string, string | undefined, RegExp, string]>([
    ['a full disk', 'as: x.o: No space left on device', 'it does not compile', /--resume/, 'no-space'],
    ['no memory', 'gcc: fatal error: Killed signal terminated program cc1', undefined, /--jobs/, 'process'],
    ['a network that is gone', 'E: 404', 'the package x can not be fetched: is', /network/, 'process'],
    ['a wrong checksum', 'words', 'the checksum of x is wrong: a', /--sha256/, 'process'],
    [
      'a cut tarball',
      'tar: EOF',
      'the archive is damaged, or not all of it is there: http://x',
      /--sha256/,
      'process',
    ],
    [
      'a source that is none',
      '',
      'this is not the source of a kernel, it has no',
      /tarball or the top/,
      'process',
    ],
    ['a lost option', '', 'options did not survive olddefconfig: X', /fragment/, 'process'],
    ['no modules', '', 'OpenZFS is a module: CONFIG_MODULES is not set', /--zfs none/, 'process'],
    ['no OpenZFS', '', 'this is not the source of a release of OpenZFS, it', /release/, 'process'],
    [
      'a key that is not there',
      '',
      'CONFIG_X names a file that this source does not have: y',
      /fragment/,
      'process',
    ],
  ])('for %s says what to do', async (_, line, told, hint, reason) => {
    const failure = await explain(['one', line], told);
    expect(failure.hint?.split('\n')[0]).toMatch(hint);
    expect(failure.reason).toBe(reason);
  });

  it.each([
    'the archive is damaged, or not all of it is there: /srv/linux.tar.xz',
    'a fragment has a line that is no option: OTHER=y',
    'CONFIG_SYSTEM_TRUSTED_KEYS names a file that this source does not have: debian/certs.pem',
    'OpenZFS is a module, and this kernel takes none: CONFIG_MODULES is not set',
    'this is not the source of a release of OpenZFS, it has no META: /srv/zfs.tar.gz',
    'this is not the source of a kernel, it has no Kconfig: /srv/linux',
  ])('does not go on where another file mends it: %s', async (told) => {
    expect((await explain([], told)).hint?.split('\n').slice(1)).toEqual(['begin anew', 'get rid of it']);
  });

  it('takes no name of a file that is compiled for a cause', async () => {
    const lines = ['  CC      lib/checksum.o', '  CC      net/fragment.o', 'error: expected ;'];
    const { hint } = await explain(lines, 'the kernel does not compile');
    expect(hint).toBe('go on: --resume\nget rid of it');
  });
});
