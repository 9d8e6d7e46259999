import { describe, expect, it } from 'vitest';
import { isProof, parseSecret, prove } from '../../../src/agent/handshake.ts';

const secret = Buffer.alloc(32, 1);
const [host, agent] = [Buffer.alloc(16, 2), Buffer.alloc(16, 3)];

describe('a proof', () => {
  const proof = prove(secret, 'host', host, agent);

  it('holds for the same secret, role and nonces', () => {
    expect(isProof(prove(secret, 'host', host, agent), proof)).toBe(true);
  });

  it.each([
    ['another secret', prove(Buffer.alloc(32, 9), 'host', host, agent)],
    ["the other side's role", prove(secret, 'agent', host, agent)],
    ['another nonce of the host', prove(secret, 'host', Buffer.alloc(16, 9), agent)],
    ['another nonce of the agent', prove(secret, 'host', host, Buffer.alloc(16, 9))],
    ['exchanged nonces', prove(secret, 'host', agent, host)],
    ['a part of it', proof.subarray(0, 31)],
    ['nothing', Buffer.alloc(0)],
  ])('does not hold for %s', (_what, claim) => {
    expect(isProof(claim, proof)).toBe(false);
  });
});

describe('a secret', () => {
  it('is 64 hexadecimal digits', () => {
    expect(parseSecret(`${'ab'.repeat(32)}\n`)).toEqual(Buffer.alloc(32, 0xab));
  });

  it.each(['', 'ab', 'zz'.repeat(32), 'ab'.repeat(33)])('is not %j', (text) => {
    expect(parseSecret(text)).toBeUndefined();
  });
});
