import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { appendFile, mkdir, readFile, readdir, rm, stat, symlink, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { resolvePaths, type Paths } from '../../../src/host/paths.ts';
import { quoted } from '../../../src/completion/quote.ts';
import { stoppedInstance } from '../../support/instances.ts';
import { header } from '../../support/qcow2.ts';
import { program, shell, temporaryHome, type Shell } from '../../support/zfsdev.ts';

let zfsdev: Shell;
let paths: Paths;
let removeHome: () => Promise<void>;
let disk: string;

beforeEach(async () => {
  const { home, remove } = await temporaryHome();
  [zfsdev, removeHome] = [shell(home), remove];
  paths = resolvePaths({ ZFSDEV_HOME: home });
  disk = (await stoppedInstance(paths, 'a')).disk;
  await writeFile(disk, header(2 ** 30));
});
afterEach(() => removeHome());

const MiB = 2 ** 20;
const parse = (text: string): unknown => JSON.parse(text);

describe('usage --watch', () => {
  it('prints sample after sample off a terminal, with the change since the first, and ends with 0', async () => {
    const watching = zfsdev.begin('usage', '--watch', '--interval', '100ms');
    await watching.until('in all');
    await appendFile(disk, Buffer.alloc(2 * MiB, 1));
    await watching.until('+2 MiB');
    watching.kill('SIGINT');
    const { exitCode, stdout, stderr } = await watching.result;
    expect({ exitCode, stderr }).toEqual({ exitCode: 0, stderr: '' });
    expect(stdout).not.toContain('\u001b');
    expect(stdout.split('\n\nEvery ').length).toBeGreaterThan(1);
  });

  it('prints a document a line as JSON, a machine that goes included', async () => {
    const watching = zfsdev.begin('usage', '--interval', '100ms', '--json');
    await watching.until('\n');
    await rm(dirname(disk), { recursive: true });
    await watching.until('"machines":[]');
    watching.kill('SIGTERM');
    const { exitCode, stdout } = await watching.result;
    expect(exitCode).toBe(0);
    const documents = stdout.split('\n').map(parse) as { machines: unknown[]; changes: unknown[] }[];
    expect(documents[0]).toMatchObject({ machines: [{ name: 'a' }], changes: [{ changeBytes: 0 }] });
    expect(documents.at(-1)?.changes).toMatchObject([{ name: 'a', driver: 'qemu' }]);
  });

  it('ends when nobody reads any longer', async () => {
    const words = [process.execPath, program, 'usage', '--watch', '--interval', '100ms']
      .map(quoted)
      .join(' ');
    const piped = spawn('sh', ['-c', `${words} | head -n 1`], {
      env: { ...process.env, ZFSDEV_HOME: zfsdev.home },
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    expect(await once(piped, 'close')).toEqual([0, null]);
  });

  it('gives the terminal back as it was, however it is ended', async () => {
    const words = [process.execPath, program, 'usage', '--watch', '--interval', '100ms']
      .map(quoted)
      .join(' ');
    for (const signal of ['INT', 'TERM', 'HUP']) {
      // `script` gives it a terminal; the shell in it ends the watch, and tells its exit code.
      const inner = `${words} & sleep 1; kill -${signal} $!; wait $!; echo "code $?"`;
      const terminal = spawn('script', ['-qec', inner, '/dev/null'], {
        env: { ...process.env, ZFSDEV_HOME: zfsdev.home, TERM: 'xterm' },
        stdio: ['ignore', 'pipe', 'inherit'],
      });
      let shown = '';
      terminal.stdout.on('data', (text: Buffer) => (shown += text.toString()));
      await once(terminal, 'close');
      const [, page = '', after = ''] = /^(.*?)\u001b\[\?25h\u001b\[\?1049l(.*)$/s.exec(shown) ?? [];
      expect(page).toContain('\u001b[?1049h\u001b[?25l');
      expect(after).toContain('in all');
      expect(after).not.toContain('\u001b[?');
      expect(after).toContain('code 0');
    }
  });

  it.each([
    [['--interval', '10ms'], 'is too short'],
    [['--interval', 'soon'], 'is not a time span'],
    [['--watch', '--history'], 'cannot be used with'],
    [['--diff', '--svg', 'x'], 'cannot be used with'],
  ])('%j is refused', async (args, words) => {
    const { exitCode, stderr } = await zfsdev('usage', ...args);
    expect(stderr).toContain(words);
    expect(exitCode).toBe(2);
  });
});

describe('usage --history', () => {
  it('plots what every look saw, machines that are gone included', async () => {
    await zfsdev('usage');
    await appendFile(disk, Buffer.alloc(2 * MiB, 1));
    await zfsdev('usage', 'a', '--json');
    await rm(dirname(disk), { recursive: true });
    const { exitCode, stdout } = await zfsdev('usage', '--history');
    expect(exitCode).toBe(0);
    expect(stdout).toMatch(/a \(gone\) +128 KiB +2\.13 MiB +128 KiB +2\.13 MiB +\+2 MiB/);
    expect(stdout).toContain('3 looks');
    expect(stdout).toContain('┤');
    const ascii = await zfsdev.with({ LC_ALL: 'C' })('usage', '--history', '--since', '1h');
    expect(ascii.stdout).toMatch(/^[\n -~]*$/);
  });

  it('gives the samples as JSON, of the machines that are named', async () => {
    await writeFile((await stoppedInstance(paths, 'b')).disk, header(1));
    await zfsdev('usage');
    const { samples } = parse((await zfsdev('usage', '--history', 'b', '--json')).stdout) as {
      samples: { at: string; machines: { name: string }[] }[];
    };
    expect(samples).toHaveLength(2);
    expect(samples[0]?.machines).toMatchObject([{ name: 'b', actualBytes: 131_072, virtualBytes: 1 }]);
    const unknown = await zfsdev('usage', '--history', 'c');
    expect(unknown.stderr).toContain('it has seen a, b');
    expect(unknown.exitCode).toBe(4);
  });

  it('writes an SVG, through links, and nothing in the place of anything but a file', async () => {
    const folder = join(zfsdev.home, 'out');
    await mkdir(folder);
    await writeFile(join(folder, 'old.svg'), 'old');
    await symlink('old.svg', join(folder, 'link.svg'));
    expect((await zfsdev('usage', '--svg', join(folder, 'link.svg'))).exitCode).toBe(0);
    expect(await readFile(join(folder, 'old.svg'), 'utf8')).toContain('</svg>');
    expect((await zfsdev('usage', '--svg', '-')).stdout).toMatch(/^<svg [^]*<\/svg>$/);
    await symlink('nowhere', join(folder, 'dangling.svg'));
    for (const [target, words] of [
      [folder, 'is a folder'],
      ['/dev/null', 'is not a file'],
      [join(folder, 'dangling.svg'), 'leads nowhere'],
      [join(folder, 'no', 'x.svg'), 'there is no folder'],
    ] as const) {
      const { exitCode, stderr } = await zfsdev('usage', '--svg', target);
      expect(stderr).toContain(words);
      expect(exitCode).toBe(2);
    }
    expect((await readdir(folder)).sort()).toEqual(['dangling.svg', 'link.svg', 'old.svg']);
    expect((await stat('/dev/null')).isCharacterDevice()).toBe(true);
  });
});

describe('usage --diff', () => {
  it('tells what a command made grow, made and took away', async () => {
    await writeFile((await stoppedInstance(paths, 'b')).disk, header(1));
    const made = join(paths.instances, 'c');
    const script = 'head -c 3M /dev/zero >>"$1"; rm -r "$2"; mkdir "$3"; echo x >"$3/log"; echo said';
    const { exitCode, stdout } = await zfsdev(
      'usage',
      '--diff',
      '--',
      'sh',
      '-c',
      script,
      'sh',
      disk,
      join(paths.instances, 'b'),
      made,
    );
    expect(stdout).toMatch(/^said\n/);
    expect(stdout).toMatch(/^a +\S+ KiB +3\.\d+ MiB +\+3 MiB$/m);
    expect(stdout).toMatch(/^b \(gone\) +\S+ KiB +- +-\S+ KiB$/m);
    expect(stdout).toMatch(/^c \(new\) +- +4 KiB +\+4 KiB$/m);
    expect(stdout).toMatch(/ free at /);
    expect(exitCode).toBe(0);
  });

  it.each<[string, string[], number, string]>([
    ['its own', ['sh', '-c', 'exit 7'], 7, ''],
    ['128 + n for a signal', ['sh', '-c', 'kill -9 $$'], 137, ''],
    ['127 for no command', ['/no/such/command'], 127, 'there is no command /no/such/command'],
    ['126 for what is no program', ['/etc/passwd'], 126, "can't be started"],
    ['125 for none', [], 125, 'there is none'],
  ])("passes the command's exit code through: %s", async (_, command, code, words) => {
    const { exitCode, stderr } = await zfsdev('usage', '--diff', '--', ...command);
    expect(stderr).toContain(words);
    expect(exitCode).toBe(code);
  });

  it('has one line of JSON on standard output, and what the command says on standard error', async () => {
    const { stdout, stderr } = await zfsdev('usage', '--diff', '--json', '--', 'echo', '--json', '--', 'out');
    expect(stderr).toBe('--json -- out');
    expect(stdout.split('\n')).toHaveLength(1);
    expect(parse(stdout)).toMatchObject({
      command: ['echo', '--json', '--', 'out'],
      exitCode: 0,
      machines: [{ name: 'a', changeBytes: 0 }],
      total: { changeBytes: 0 },
    });
  });

  it('hands signals on, and measures all the same', async () => {
    const script = 'trap "echo caught; exit 9" TERM; echo ready; while :; do sleep 0.05; done';
    const diff = zfsdev.begin('usage', '--diff', '--', 'sh', '-c', script);
    await diff.until('ready');
    diff.kill('SIGTERM');
    const { exitCode, stdout } = await diff.result;
    expect(stdout).toContain('caught');
    expect(stdout).toContain('exit code 9');
    expect(exitCode).toBe(9);
  });
});

it('a usage whose history can not be written is a look all the same', async () => {
  await mkdir(paths.usageHistory);
  const { exitCode, stdout, stderr } = await zfsdev('usage');
  expect(stdout).toContain('a     stopped');
  expect({ exitCode, stderr }).toEqual({ exitCode: 0, stderr: '' });
});
