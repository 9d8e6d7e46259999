import { expect, it } from 'vitest';
import {
  countsOf,
  failuresOf,
  groupsAbout,
  groupsChosen,
  groupsOf,
  mayBeRunning,
  missingOf,
  outcomesOf,
  runfileOf,
} from '../../support/openzfs.ts';

// As the runfiles of OpenZFS 2.3 have it.
const runfiles = `[DEFAULT]
pre = setup

[tests/functional/zvol/zvol_cli]
tests = ['zvol_cli_001_pos', 'zvol_cli_002_pos']
tags = ['functional', 'zvol', 'zvol_cli']

[tests/functional/zvol/zvol_misc]
tests = ['zvol_misc_002_pos',
    'zvol_misc_volmode']
tags = ['functional', 'zvol', 'zvol_misc']

[tests/functional/libzfs]
tests = ['many_fds']

[tests/functional/zvol/zvol_misc:Linux]
tests = ['zvol_misc_fua']
`;

// As its test-runner.py prints it.
const suite = '/usr/share/zfs/zfs-tests/tests/functional/zvol';
const output = `[2026-11-22T10:00:00.000001] Test: ${suite}/zvol_cli/setup (run as root) [00:03] [PASS]
[2026-11-22T10:00:04.000001] Test: ${suite}/zvol_cli/zvol_cli_001_pos (run as root)  [00:04] [FAIL]
[2026-11-22T10:00:04.000001] Test: ${suite}/zvol_cli/zvol_cli_002_pos (run as root)  [00:04] [PASS]
[2026-11-22T10:00:04.000001] Test: ${suite}/zvol_cli/cleanup (run as root)  [00:04] [PASS]
[2026-11-22T10:00:04.000001] Test: ${suite}/zvol_misc/setup (run as root)  [00:04] [KILLED]
[2026-11-22T10:00:04.000001] Test (Linux): ${suite}/zvol_misc/zvol_misc_002_pos (run as root)  [00:00] [SKIP]

Results Summary
PASS	3
`;
const groups = groupsOf(runfiles, 'tests/functional/zvol/');
const outcomes = outcomesOf(output);

it('takes the groups of a folder from runfiles, those for Linux alone beside the others', () => {
  expect(groups).toEqual([
    { folder: 'tests/functional/zvol/zvol_cli', tests: ['zvol_cli_001_pos', 'zvol_cli_002_pos'] },
    {
      folder: 'tests/functional/zvol/zvol_misc',
      tests: ['zvol_misc_002_pos', 'zvol_misc_volmode', 'zvol_misc_fua'],
    },
  ]);
});

it('leaves out what was not chosen, and knows what is no test', () => {
  expect(groupsChosen(groups, [])).toEqual(groups);
  expect(groupsChosen(groups, ['zvol_cli_002', 'zvol_misc/'])).toEqual([
    { folder: 'tests/functional/zvol/zvol_cli', tests: ['zvol_cli_002_pos'] },
    groups[1],
  ]);
  expect(() => groupsChosen(groups, ['zvol_cli', 'zvol_none'])).toThrow('there is no test zvol_none among');
});

it('writes a runfile that has just these groups', () => {
  const text = runfileOf(groups, 60);
  expect(text).toContain('timeout = 60\n');
  expect(groupsOf(text, 'tests/')).toEqual(groups);
});

it('reads what became of each test, and which failed', () => {
  expect(outcomes.get('tests/functional/zvol/zvol_cli/setup')).toEqual({ result: 'PASS', took: '00:03' });
  expect(failuresOf(outcomes)).toEqual([
    'tests/functional/zvol/zvol_cli/zvol_cli_001_pos',
    'tests/functional/zvol/zvol_misc/setup',
  ]);
  expect(countsOf(outcomes)).toBe('3 PASS, 1 FAIL, 1 KILLED, 1 SKIP');
});

it('names the tests of which nothing was said', () => {
  expect(missingOf(groups, outcomes)).toEqual([
    'tests/functional/zvol/zvol_misc/zvol_misc_volmode',
    'tests/functional/zvol/zvol_misc/zvol_misc_fua',
  ]);
});

it('runs again what failed, and all of a group whose setup failed', () => {
  expect(groupsAbout(groups, failuresOf(outcomes))).toEqual([
    { folder: 'tests/functional/zvol/zvol_cli', tests: ['zvol_cli_001_pos'] },
    groups[1],
  ]);
});

it('knows which test may be under way', () => {
  expect(mayBeRunning(groups, outcomes, 'zvol_cli_002_pos')).toBe(false);
  expect(mayBeRunning(groups, outcomes, 'zvol_misc_volmode')).toBe(true);
  expect(mayBeRunning(groups, outcomes, 'zvol_misc_fua')).toBe(false);
});
