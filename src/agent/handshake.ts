import { createHmac, timingSafeEqual } from 'node:crypto';

/**
 * Host: `hello, 16 random bytes`. Agent: `hello, 16 random bytes, its proof`. Host: its proof, and at once its request.
 * A proof is an HMAC-SHA256 by the shared secret over a label and both nonces: the secret never crosses the wire, the
 * labels keep one side's proof from serving as the other's, and fresh nonces of both sides make a replay worthless.
 */
export const hello = Buffer.from('zdA1');
/** What an agent says instead that has no secret to prove anything with. */
export const helloWithoutSecret = Buffer.from('zdA-');
export const nonceLength = 16;
export const proofLength = 32;

export type Role = 'host' | 'agent';

export function prove(secret: Buffer, role: Role, hostNonce: Buffer, agentNonce: Buffer): Buffer {
  return createHmac('sha256', secret)
    .update(`zfsdev-agent-1 ${role}\0`)
    .update(hostNonce)
    .update(agentNonce)
    .digest();
}

/** Compares in constant time. */
export function isProof(claim: Buffer, expected: Buffer): boolean {
  return claim.length === expected.length && timingSafeEqual(claim, expected);
}

/** The 32 bytes of a secret written as hexadecimal digits; undefined if that isn't one. */
export function parseSecret(text: string): Buffer | undefined {
  const digits = text.trim();
  return /^[0-9a-f]{64}$/i.test(digits) ? Buffer.from(digits, 'hex') : undefined;
}
