import { spawnSync } from 'node:child_process';
import { readdirSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { expect, inject, it } from 'vitest';

const configs = resolve(import.meta.dirname, '../../lima-configs');

it.each(readdirSync(configs))('limactl finds nothing to say of %s', (file) => {
  const { status, stderr } = spawnSync('limactl', ['--tty=false', 'validate', join(configs, file)], {
    encoding: 'utf8',
    env: { ...process.env, LIMA_HOME: join(inject('limaHome'), 'lima') },
  });
  // An unknown key is only a warning, and exit code 0.
  expect(stderr).not.toMatch(/level=(warning|error|fatal)/);
  expect(stderr).toContain('OK');
  expect(status).toBe(0);
});
