// Runs everything: installs what the lanes need, then types, lint, and the three lanes.
import { spawnSync } from 'node:child_process';

function run(command, args) {
  console.log(`\n== ${[command, ...args].join(' ')}`);
  const { status, error } = spawnSync(command, args, { stdio: 'inherit' });
  if (error) throw error;
  if (status !== 0) process.exit(status ?? 1);
}

run('npm', ['run', '--silent', 'build']);
run('node', ['dist/zfsdev.js', 'doctor', '--fix', '--yes']);
run('npm', ['run', '--silent', 'typecheck']);
run('npm', ['run', '--silent', 'lint']);
run('node_modules/.bin/vitest', ['run', '--reporter=default', '--reporter=./test/count-reporter.ts']);
