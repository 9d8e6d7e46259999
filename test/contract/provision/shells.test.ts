import { spawnSync } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { describe, expect, it } from 'vitest';
import { parse } from 'yaml';
import { findPackageRoot } from '../../../src/host/package-root.ts';
import { limaVersionOption } from '../../../src/lima/version.ts';
import { renderLima } from '../../../src/lima/yaml.ts';
import { listTemplates } from '../../../src/template/load.ts';
import { resolveSpec } from '../../../src/template/resolve.ts';

const root = resolve(findPackageRoot(), 'provision');

/** Every script below provision/, those that others read included. */
const scripts = readdirSync(root, { recursive: true, withFileTypes: true })
  .filter((entry) => entry.isFile())
  .map(({ parentPath, name }) => join(parentPath, name))
  .filter((path) => path.endsWith('.sh') || /^#!.*sh\n/.test(readFileSync(path, 'utf8')))
  .map((path) => path.slice(root.length + 1))
  .sort();

/** Fails with a program's own words unless it ends with 0; a host without it is a host on which nothing was tested. */
function expectSilence(argv: readonly [string, ...string[]], input?: string): void {
  const [program, ...args] = argv;
  const { status, stdout, stderr, error } = spawnSync(program, args, { cwd: root, encoding: 'utf8', input });
  if (error) throw new Error(`${program} is needed (apt-get install ${program}): ${error.message}`);
  expect({ status, said: stdout + stderr }).toEqual({ status: 0, said: '' });
}

const shellcheck = ['shellcheck', '--shell=sh', '--external-sources', '--source-path=SCRIPTDIR'] as const;

it('finds the scripts', () => {
  expect(scripts).toEqual(
    expect.arrayContaining([
      'build-tools.sh',
      'cloud/init',
      'cloud/root-hook.sh',
      'image/files/usr/lib/zfsdev/failed',
      'image/root-lib.sh',
      'image/share-modules.sh',
      'mounts.sh',
      'pool.sh',
      'zfs-packages.sh',
    ]),
  );
});

describe.each(scripts)('provision/%s', (file) => {
  it('is understood by dash, the sh of Debian and Ubuntu', () => expectSilence(['dash', '-n', file]));
  it('passes shellcheck', () => expectSilence([...shellcheck, file]));
});

interface LimaYaml {
  readonly provision: readonly { readonly script?: string }[];
  readonly probes: readonly { readonly script: string }[];
}

/** What Lima runs beside those: probes, and what the driver and the form for older versions add. */
async function scriptsForLima(): Promise<string[]> {
  const found = new Set<string>();
  for (const template of await listTemplates()) {
    for (const limaVersion of [undefined, limaVersionOption('2.2.0')]) {
      const options = { limaVersion, extras: { marker: 'zfsdev machine x' } };
      const { provision, probes } = parse(await renderLima(await resolveSpec(template), options)) as LimaYaml;
      for (const { script } of [...provision, ...probes]) if (script !== undefined) found.add(script);
    }
  }
  for (const file of scripts) found.delete(readFileSync(join(root, file), 'utf8'));
  return [...found];
}

it('what is made for Lima passes both as well', async () => {
  const made = await scriptsForLima();
  // A probe of each kind, the way in for root, and the settings of pools.
  expect(made.length).toBeGreaterThanOrEqual(4);
  for (const script of made) {
    expectSilence(['dash', '-n'], script);
    expectSilence([...shellcheck, '-'], script);
  }
});
