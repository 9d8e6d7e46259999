import { spawn, type ChildProcess } from 'node:child_process';
import { closeSync, constants, openSync } from 'node:fs';
import { Socket } from 'node:net';

const { O_NONBLOCK, O_RDONLY, O_WRONLY } = constants;

/** The agent's end of a command's standard stream, and the command's. */
export interface Pipe {
  readonly ours: Socket;
  /** A descriptor for the command; to be closed here once the command has it. */
  readonly theirs: number;
}

export interface StandardPipes {
  readonly stdin: Pipe;
  readonly stdout: Pipe;
  readonly stderr: Pipe;
}

/** Descriptors of the helper: where to read from a pipe, where to write to it. */
type Ends = readonly [read: string, write: string];

const stock = 48;

/**
 * Makes pipes and prints their descriptors, two a line; closes those it is told and makes as many new ones. Ends with
 * its standard input.
 */
const helperProgram = `
$| = 1;
sub make { pipe(my $r, my $w) or die "pipe: $!\\n"; $kept{fileno $r} = $r; $kept{fileno $w} = $w;
  print fileno($r), " ", fileno($w), "\\n" }
make() for 1 .. ${stock};
while (<STDIN>) { close(delete $kept{$_}) for split; make() }`;

/**
 * Real pipes for commands. Node's own are socket pairs, and there `echo >/dev/stderr` and `cat /dev/stdin`, which many
 * a test script does, fail with ENXIO. Node can't make a pipe, but it can open one that another process holds: a Perl
 * of a few lines keeps a stock of them, so that a command doesn't wait for a process. (A FIFO would not do: opened
 * anew after its writer has gone, it blocks.)
 */
export class PipePool {
  #helper: ChildProcess | undefined;
  #free: Ends[] = [];
  #waiting: { readonly give: () => void; readonly fail: (error: Error) => void }[] = [];

  /** Starts the helper, unless it runs; if it can't be, the next command says so. */
  start(): ChildProcess {
    if (this.#helper) return this.#helper;
    const helper = spawn('perl', ['-e', helperProgram], { stdio: ['pipe', 'pipe', 'inherit'] });
    this.#helper = helper;
    let text = '';
    helper.stdout.on('data', (chunk: Buffer) => {
      const lines = (text + chunk.toString('latin1')).split('\n');
      text = lines.pop() ?? '';
      for (const line of lines) this.#free.push(line.split(' ') as unknown as Ends);
      this.#serve();
    });
    helper.stdin.on('error', () => undefined);
    helper.on('error', (error) => this.#lose(helper, error));
    helper.on('close', () => this.#lose(helper, new Error('the helper that makes pipes has ended')));
    return helper;
  }

  /** Pipes for one command. @throws Error if none can be made. */
  async take(): Promise<StandardPipes> {
    const helper = this.start();
    if (this.#free.length < 3 || this.#waiting.length > 0) {
      await new Promise<void>((give, fail) => this.#waiting.push({ give, fail }));
    }
    const [stdin, stdout, stderr] = this.#free.splice(0, 3) as [Ends, Ends, Ends];
    const pipes = {
      stdin: openPipe(helper, stdin, 'command-reads'),
      stdout: openPipe(helper, stdout, 'command-writes'),
      stderr: openPipe(helper, stderr, 'command-writes'),
    };
    helper.stdin?.write([stdin, stdout, stderr].map((ends) => `${ends.join(' ')}\n`).join(''));
    return pipes;
  }

  /** One at a time: who is served takes its pipes a moment later. */
  #serve(): void {
    if (this.#free.length < 3) return;
    const next = this.#waiting.shift();
    if (!next) return;
    next.give();
    setImmediate(() => this.#serve());
  }

  #lose(helper: ChildProcess, error: Error): void {
    if (this.#helper !== helper) return;
    this.#helper = undefined;
    this.#free = [];
    for (const { fail } of this.#waiting.splice(0)) fail(error);
  }
}

function openPipe(
  helper: ChildProcess,
  [read, write]: Ends,
  direction: 'command-reads' | 'command-writes',
): Pipe {
  const reads = direction === 'command-reads';
  const path = (end: string): string => `/proc/${helper.pid}/fd/${end}`;
  const theirs = reads ? openSync(path(read), O_RDONLY) : openSync(path(write), O_WRONLY);
  try {
    const fd = openSync(path(reads ? write : read), (reads ? O_WRONLY : O_RDONLY) | O_NONBLOCK);
    return { ours: new Socket({ fd, readable: !reads, writable: reads }), theirs };
  } catch (error) {
    closeSync(theirs);
    throw error;
  }
}
