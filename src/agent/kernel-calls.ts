import { spawn, type ChildProcess } from 'node:child_process';
import { createInterface } from 'node:readline';

/** clock_settime's number: the same on no two architectures. */
const clockSettime = process.arch === 'arm64' ? 112 : 227;

/**
 * Reads one call a line and answers `ok` or `error` and why. RNDRESEEDCRNG (0x5207) says ENODATA (61) when the kernel has
 * drawn no number yet, and then there is nothing to reseed. SIOCSIFHWADDR (0x8924) takes the address as Ethernet's (1).
 */
const helperProgram = `
$| = 1;
my %calls = (
  time => sub { syscall(${clockSettime}, 0, pack("q q", $_[0], $_[1])) == 0 or die "clock_settime: $!\\n" },
  mac => sub { socket(my $s, 2, 2, 0) or die "socket: $!\\n";
    ioctl($s, 0x8924, pack("a16 S H12 x8", $_[0], 1, $_[1])) or die "SIOCSIFHWADDR: $!\\n" },
  reseed => sub { open(my $r, "<", $_[0]) or die "$_[0]: $!\\n";
    ioctl($r, 0x5207, 0) or $! == 61 or die "RNDRESEEDCRNG: $!\\n" },
);
while (<STDIN>) { my ($name, @words) = split;
  print eval { $calls{$name}->(@words); 1 } ? "ok\\n" : "error $@" }`;

/**
 * Calls into the kernel that Node doesn't have. A Perl of a few lines makes them (it is in every Debian): one process
 * that stays, because a fork finds it running, while starting one is most of what an emulated machine's first second
 * would go into.
 */
export class KernelCalls {
  #helper: ChildProcess | undefined;
  #waiting: { readonly give: () => void; readonly fail: (error: Error) => void }[] = [];

  /** Sets the clock. */
  setTime(milliseconds: number): Promise<void> {
    const seconds = Math.floor(milliseconds / 1000);
    return this.#call('time', seconds, Math.floor((milliseconds - seconds * 1000) * 1_000_000));
  }

  /** Gives a network card another address, while it goes on working. */
  setAddress(device: string, address: string): Promise<void> {
    return this.#call('mac', device, address.replaceAll(':', ''));
  }

  /**
   * Has the kernel use what was written to /dev/urandom now. By itself it takes it into account within a minute; until
   * then forks would draw the same numbers.
   */
  reseed(device: string): Promise<void> {
    return this.#call('reseed', device);
  }

  #call(name: string, ...words: (string | number)[]): Promise<void> {
    const helper = this.#start();
    return new Promise((give, fail) => {
      this.#waiting.push({ give, fail });
      helper.stdin?.write(`${[name, ...words].join(' ')}\n`);
    });
  }

  #start(): ChildProcess {
    if (this.#helper) return this.#helper;
    const helper = spawn('perl', ['-e', helperProgram], { stdio: ['pipe', 'pipe', 'inherit'] });
    this.#helper = helper;
    createInterface({ input: helper.stdout }).on('line', (line) => {
      const next = this.#waiting.shift();
      if (line === 'ok') next?.give();
      else next?.fail(new Error(line.replace(/^error /, '')));
    });
    helper.stdin.on('error', () => undefined);
    helper.on('error', (error) => this.#lose(helper, error));
    helper.on('close', () => this.#lose(helper, new Error('the helper that calls the kernel has ended')));
    return helper;
  }

  #lose(helper: ChildProcess, error: Error): void {
    if (this.#helper !== helper) return;
    this.#helper = undefined;
    for (const { fail } of this.#waiting.splice(0)) fail(error);
  }
}
