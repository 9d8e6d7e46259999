// Runs all that needs nothing but this repository: installs what the lanes need, then types, lint, and three lanes. The
// others (docs/architecture.md) want a limactl that somebody else has to install, or hours.
import { spawnSync } from 'node:child_process';

function run(command, args) {
  console.log(`\n== ${[command, ...args].join(' ')}`);
  const { status, error } = spawnSync(command, args, { stdio: 'inherit' });
  if (error) throw error;
  if (status !== 0) process.exit(status ?? 1);
}

const optional = ['shellcheck', 'zstd'];

function isAbsent(program) {
  return spawnSync(program, ['--version'], { stdio: 'ignore' }).error !== undefined;
}

function asRoot(...argv) {
  const [command, ...args] = process.getuid() === 0 ? argv : ['sudo', ...argv];
  return [command, args];
}

run('npm', ['run', '--silent', 'build']);
run('node', ['dist/zfsdev.js', 'doctor', '--fix', '--yes']);
// zfsdev itself can do without, so doctor leaves them out. Elsewhere than on Debian and Ubuntu the tests say what is missing.
const absent = optional.filter(isAbsent);
if (absent.length > 0 && !isAbsent('apt-get')) {
  for (const words of [['update'], ['install', '-y', '--no-install-recommends', ...absent]])
    run(...asRoot('apt-get', '-q', '-o', 'DPkg::Lock::Timeout=300', ...words));
}
run('npm', ['run', '--silent', 'typecheck']);
run('npm', ['run', '--silent', 'lint']);
run('npm', ['run', '--silent', 'lint:proto']);
const lanes = ['unit', 'contract', 'vm'].map((lane) => `--project=${lane}`);
const reporters = ['default', './test/count-reporter.ts'].map((reporter) => `--reporter=${reporter}`);
run('node_modules/.bin/vitest', ['run', ...lanes, ...reporters]);
