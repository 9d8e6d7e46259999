import { expect, it } from 'vitest';
import { filesBehind } from '../../../src/qemu/backing-name.ts';

it.each<[string, readonly string[]]>([
  ['/a/b.qcow2', ['/a/b.qcow2']],
  ['../b', ['../b']],
  ['./a:b', ['./a:b']],
  ['file:/a b', ['/a b']],
  ['nbd://host/export', []],
  ['json:{"driver":"qcow2","file":{"driver":"file","filename":"/a b"}}', ['/a b']],
  ['json:{"file.filename":"/a","file.driver":"file","driver":"qcow2"}', ['/a']],
  ['json:{"driver":"qcow2","file":{"filename":"file:/a"}}', ['/a']],
  // A filter, and what it stands before.
  ['json:{"driver":"throttle","file":{"driver":"qcow2","file":{"filename":"/a"}}}', ['/a']],
  // The chain is told nearest first, wherever in the options it stands.
  ['json:{"backing":{"file":{"filename":"/far"}},"file":{"filename":"/near"}}', ['/near', '/far']],
  ['json:{"backing.file.filename":"/far","file.filename":"/near"}', ['/near', '/far']],
  ['json:{"driver":"quorum","children":[{"filename":"/a"},{"filename":"/b"}]}', ['/a', '/b']],
  ['json:{"driver":"nbd","server":{"type":"unix","path":"/socket"}}', []],
  // QEMU takes single quotes; the standard doesn't.
  [`json:{'driver': 'qcow2', 'file': {'filename': '/it\\'s "a"'}}`, [`/it's "a"`]],
  ['json:{', []],
])('of %s', (name, files) => {
  expect(filesBehind(name)).toEqual(files);
});
