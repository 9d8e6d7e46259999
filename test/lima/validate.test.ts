import { spawnSync } from 'node:child_process';
import { readdirSync } from 'node:fs';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { afterAll, beforeAll, describe, expect, inject, it } from 'vitest';
import { listTemplates } from '../../src/template/load.ts';
import { shell } from '../support/zfsdev.ts';

const home = inject('limaHome');
const configs = resolve(import.meta.dirname, '../../lima-configs');
let folder: string;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'zfsdev-render-'));
});
afterAll(() => rm(folder, { recursive: true, force: true }));

function limactl(...args: readonly string[]): { status: number | null; stdout: string; stderr: string } {
  return spawnSync('limactl', ['--tty=false', ...args], {
    encoding: 'utf8',
    env: { ...process.env, LIMA_HOME: join(home, 'lima') },
  });
}

function expectNothingToSay(file: string): void {
  const { status, stderr } = limactl('validate', file);
  // An unknown key is only a warning, and exit code 0.
  expect(stderr).not.toMatch(/level=(warning|error|fatal)/);
  expect(stderr).toContain('OK');
  expect(status).toBe(0);
}

it.each(readdirSync(configs))('limactl finds nothing to say of %s', (file) => {
  expectNothingToSay(join(configs, file));
});

describe.each(await listTemplates())('what render prints of %s', (template) => {
  it.each(['1.0', 'its own version'])('for Lima %s is as good', async (version) => {
    const own = limactl('--version').stdout.trim().split(' ').at(-1) ?? '';
    const asked = version === '1.0' ? version : own;
    const { exitCode, stdout } = await shell(home)('render', template, '--lima-version', asked);
    expect(exitCode).toBe(0);
    const file = join(folder, `${template}-${asked}.yaml`);
    await writeFile(file, `${stdout}\n`);
    expectNothingToSay(file);
  });
});
