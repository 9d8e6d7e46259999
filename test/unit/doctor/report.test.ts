import { stripVTControlCharacters } from 'node:util';
import { describe, expect, it } from 'vitest';
import type { CheckResult } from '../../../src/doctor/check.ts';
import { doctorDocument, renderReport, wrap } from '../../../src/doctor/report.ts';
import { painter } from '../../../src/ui/style.ts';

const node: CheckResult = {
  id: 'node',
  title: 'Node',
  status: 'ok',
  found: '20.19.2',
  neededFor: 'zfsdev itself',
  optional: false,
  finding: { status: 'ok', found: '20.19.2' },
};
const accelerator: CheckResult = {
  id: 'accelerator',
  title: 'accelerator',
  status: 'weak',
  found: 'tcg (software emulation, several times slower)',
  note: 'KVM is there but refused: /dev/kvm belongs to the group kvm, and ada is not in it',
  neededFor: 'speed',
  optional: false,
  fix: ['sudo usermod -aG kvm ada'],
  finding: { status: 'weak', found: '' },
};
const mmdebstrap: CheckResult = {
  id: 'mmdebstrap',
  title: 'mmdebstrap',
  status: 'missing',
  found: 'not installed',
  neededFor: 'building images',
  optional: false,
  fix: ['sudo apt-get install --no-install-recommends mmdebstrap'],
  finding: { status: 'missing', found: 'not installed', install: ['mmdebstrap'] },
};
const namespaces: CheckResult = {
  ...mmdebstrap,
  id: 'home',
  title: 'state home',
  fix: ['export ZFSDEV_HOME=/var/tmp/zfsdev'],
  finding: { status: 'missing', found: '', byHand: ['export ZFSDEV_HOME=/var/tmp/zfsdev'] },
};
const plain = painter(false);
const lastLine = (results: readonly CheckResult[]): string | undefined =>
  renderReport(results, plain, 60).trimEnd().split('\n').at(-1);

describe('renderReport', () => {
  it('is readable at 60 columns, commands whole', () => {
    expect(renderReport([node, accelerator, mmdebstrap], plain, 60)).toBe(`✔ ok       Node         20.19.2
! weak     accelerator  tcg (software emulation, several
                        times slower)
                        for speed
                        KVM is there but refused: /dev/kvm
                        belongs to the group kvm, and ada is
                        not in it
    sudo usermod -aG kvm ada
✘ missing  mmdebstrap   not installed
                        for building images
    sudo apt-get install --no-install-recommends mmdebstrap

Missing: mmdebstrap.
next: zfsdev doctor --fix
`);
  });

  it('colours the words and changes nothing else', () => {
    const results = [node, accelerator, mmdebstrap];
    const colored = renderReport(results, painter(true), 60);
    expect(colored).not.toBe(stripVTControlCharacters(colored));
    expect(stripVTControlCharacters(colored)).toBe(renderReport(results, plain, 60));
  });

  it('ends with what to type next', () => {
    expect(lastLine([node])).toBe('next: zfsdev up zfs-test');
    expect(lastLine([node, accelerator])).toBe('next: zfsdev up zfs-test');
    expect(lastLine([mmdebstrap, namespaces])).toBe('next: zfsdev doctor --fix');
    expect(lastLine([namespaces])).toBe('next: zfsdev doctor');
  });
});

describe('doctorDocument', () => {
  it('is ok unless something needed is missing, and keeps the inside to itself', () => {
    expect(doctorDocument([node, accelerator]).ok).toBe(true);
    const document = doctorDocument([node, mmdebstrap]);
    expect(document.ok).toBe(false);
    expect(document.checks[1]).toEqual({
      id: 'mmdebstrap',
      title: 'mmdebstrap',
      status: 'missing',
      found: 'not installed',
      neededFor: 'building images',
      optional: false,
      fix: ['sudo apt-get install --no-install-recommends mmdebstrap'],
    });
  });
});

describe('wrap', () => {
  it('never breaks a word', () => {
    expect(wrap('a bb cccccccccc d', 4)).toEqual(['a bb', 'cccccccccc', 'd']);
    expect(wrap('', 10)).toEqual(['']);
  });
});
