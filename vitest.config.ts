import { defineConfig } from 'vitest/config';

export default defineConfig({
  test: {
    projects: [
      { test: { name: 'unit', include: ['test/unit/**/*.test.ts'] } },
      {
        test: {
          name: 'contract',
          include: ['test/contract/**/*.test.ts'],
          testTimeout: 60_000,
          hookTimeout: 60_000,
        },
      },
      {
        test: {
          name: 'vm',
          include: ['test/vm/**/*.test.ts'],
          globalSetup: ['test/vm/setup.ts'],
          // After the other lanes. Each file has a state home of its own, and a machine that boots is busy on one
          // processor most of the time, so two at once are done sooner; more would make each of them slow.
          sequence: { groupOrder: 1 },
          maxWorkers: 2,
          testTimeout: 900_000,
          hookTimeout: 1_800_000,
        },
      },
      {
        test: {
          // Not part of `npm test`: it compiles real kernels, which takes minutes, and hours in an emulated machine.
          name: 'kernel',
          include: ['test/kernel/**/*.test.ts'],
          globalSetup: ['test/vm/setup.ts'],
          fileParallelism: false,
          testTimeout: 24 * 3_600_000,
          hookTimeout: 1_800_000,
        },
      },
      {
        test: {
          // Not part of `npm test`: it installs OpenZFS's own tests in a machine and runs some of them, which takes hours in an
          // emulated one.
          name: 'openzfs',
          include: ['test/openzfs/**/*.test.ts'],
          globalSetup: ['test/vm/setup.ts'],
          fileParallelism: false,
          testTimeout: 24 * 3_600_000,
          hookTimeout: 1_800_000,
        },
      },
      {
        test: {
          // Not part of `npm test`: it drives a real limactl, which has to be there.
          name: 'lima',
          include: ['test/lima/**/*.test.ts'],
          globalSetup: ['test/lima/setup.ts'],
          fileParallelism: false,
          testTimeout: 1_500_000,
          hookTimeout: 1_800_000,
        },
      },
    ],
  },
});
