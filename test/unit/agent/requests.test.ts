import { describe, expect, it } from 'vitest';
import { parseRequest } from '../../../src/agent/requests.ts';

const adoption = {
  kind: 'adopt',
  hostname: 'zfs-test',
  machineId: '0123456789abcdef0123456789abcdef',
  hostid: '01234567',
  mac: '52:54:00:12:34:56',
  sshHostKey: '-----BEGIN OPENSSH PRIVATE KEY-----\nx\n-----END OPENSSH PRIVATE KEY-----\n',
  sshHostPublicKey: 'ssh-ed25519 AAAA zfs-test\n',
  agentKey: 'ab'.repeat(32),
  time: 1_700_000_000_000,
  entropy: 'cd'.repeat(32),
};

function parse(value: unknown): unknown {
  return parseRequest(Buffer.from(JSON.stringify(value)));
}

describe('a request', () => {
  it.each([
    { kind: 'exec', argv: ['true'] },
    { kind: 'exec', argv: ['sh', '-c', 'a b\n'], env: { A: 'b c' }, cwd: '/tmp' },
    { kind: 'facts' },
    adoption,
  ])('is taken as it is', (request) => {
    expect(parse(request)).toEqual(request);
  });

  it.each([
    [null, /object/],
    [[], /object/],
    [{ kind: 'reboot' }, /reboot/],
    [{ kind: 'exec' }, /argv/],
    [{ kind: 'exec', argv: [] }, /argv/],
    [{ kind: 'exec', argv: [''] }, /argv/],
    [{ kind: 'exec', argv: ['a', 1] }, /argv/],
    [{ kind: 'exec', argv: ['a\0b'] }, /argv/],
    [{ kind: 'exec', argv: ['a'], env: { A: 1 } }, /env/],
    [{ kind: 'exec', argv: ['a'], cwd: 3 }, /cwd/],
    [{ ...adoption, hostname: '../etc' }, /hostname/],
    [{ ...adoption, machineId: 'short' }, /machineId/],
    [{ ...adoption, hostid: '0x1' }, /hostid/],
    [{ ...adoption, mac: 'eth0' }, /mac/],
    [{ ...adoption, sshHostKey: '' }, /sshHostKey/],
    [{ ...adoption, sshHostPublicKey: 'a b\nc d\n' }, /sshHostPublicKey/],
    [{ ...adoption, agentKey: 'ab' }, /agentKey/],
    [{ ...adoption, entropy: 'abc' }, /entropy/],
    [{ ...adoption, time: 'now' }, /time/],
  ])('is refused in words: %j', (request, words) => {
    expect(() => parse(request)).toThrow(words);
  });
});
