import { createHash } from 'node:crypto';
import { Failure } from '../core/errors.ts';
import type { Context } from '../host/context.ts';
import { planArgv } from '../qemu/argv.ts';
import { nowhere } from '../qemu/machine.ts';
import { unplaced } from '../qemu/storage-argv.ts';
import type { Instance } from './instance.ts';
import { machineOf } from './qemu-start.ts';
import type { SavedMachine } from './snapshot-record.ts';
import { hostCpu } from './warm-store.ts';

/** What saved memory needs to go on: written down when it is saved, and compared before it is loaded. */
export function savedMachine(ctx: Context, instance: Instance, qemu: string): SavedMachine {
  const accelerator = instance.state.accelerator ?? 'tcg';
  // Its kernel runs already, whatever one would be booted with by now.
  const boot = { kind: 'kernel', kernel: '', initrd: '', commandLine: '' } as const;
  const machine = { ...machineOf(ctx, instance, boot), ...nowhere, sshPort: 0, commandPort: 0 };
  // The same wherever it lies in memory: a saved state fits both.
  const storage = machine.storage && { storage: machine.storage.map(unplaced) };
  const devices = planArgv({ ...machine, ...storage, ram: { kind: 'own' } });
  return {
    accelerator,
    qemu,
    ...(accelerator === 'tcg' ? {} : { cpu: hostCpu() }),
    devices: createHash('sha256').update(JSON.stringify(devices)).digest('hex'),
  };
}

/** @throws Failure `wrong-state` that says what differs: QEMU would only find out half-way, and the machine would be lost. */
export function requireSameMachine(
  { instance, snapshot }: { readonly instance: string; readonly snapshot: string },
  saved: SavedMachine,
  now: SavedMachine,
): void {
  const differences = [
    ...(saved.qemu === now.qemu ? [] : [`it was saved by QEMU ${saved.qemu}, and this is ${now.qemu}`]),
    ...(saved.accelerator === now.accelerator
      ? []
      : [`it was saved under ${saved.accelerator}, and the machine runs under ${now.accelerator}`]),
    ...(saved.cpu === now.cpu ? [] : [`it was saved on ${saved.cpu ?? 'another processor'}`]),
    ...(saved.devices === now.devices ? [] : ['the machine has other devices by now']),
  ];
  // An accelerator shows among the devices too.
  const [first] = differences;
  if (first === undefined) return;
  throw new Failure(
    'wrong-state',
    `the memory in ${JSON.stringify(snapshot)} doesn't fit "${instance}": ${first}`,
    {
      hint: 'with --no-memory only the disks are taken back, and the machine boots',
      data: { differences },
    },
  );
}
