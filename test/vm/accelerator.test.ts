import { afterAll, expect, test } from 'vitest';
import { chooseAccelerator, probe } from '../../src/qemu/accelerator.ts';
import { findQemu, hostArchitecture } from '../../src/qemu/binary.ts';
import { testContext } from '../support/context.ts';

const ctx = await testContext();
afterAll(() => ctx.remove());
const architecture = hostArchitecture();

test('the probe guest runs under TCG', async () => {
  const { binary } = await findQemu(ctx, architecture);
  expect(await probe(ctx, { binary, architecture, accelerator: 'tcg', deadline: 60_000 })).toEqual({
    works: true,
  });
});

test('an accelerator is always found, with its reason, and remembered', async () => {
  const first = await chooseAccelerator(ctx, { architecture, choice: 'auto' });
  expect(first.reason).not.toBe('');
  expect(await chooseAccelerator(ctx, { architecture, choice: 'auto' })).toEqual(first);
});
