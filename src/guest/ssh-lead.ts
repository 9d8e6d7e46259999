import { Duplex, type Readable } from 'node:stream';
import { Failure } from '../core/errors.ts';
import type { Context } from '../host/context.ts';
import type { StreamingProcess } from '../host/process.ts';

/**
 * Leads standard input and output to a socket of the guest, in the guest: it has Node, which the volume manager runs on. An
 * empty line comes first once the connection stands.
 */
export const leadScript = [
  'const s=require("net").connect(process.argv[1],()=>{process.stdout.write("\\n");process.stdin.pipe(s);s.pipe(process.stdout)})',
  's.on("error",(e)=>{process.stderr.write(e.message+"\\n");process.exit(1)})',
  's.on("close",()=>process.exit())',
].join(';');

/** Milliseconds for the way there, where ssh itself gives up after 60 s and an emulated guest starts Node in seconds. */
const patience = 120_000;

/**
 * A stream that leads where `argv`, an ssh that runs `leadScript`, leads. Nothing is opened on this host that another
 * process could reach, and it ends with its user.
 * @param what the socket and its machine, for messages.
 * @throws Failure `guest` in the guest's own words, `interrupted`
 */
export async function leadOver(
  ctx: Pick<Context, 'env'>,
  argv: readonly [string, ...string[]],
  what: { readonly path: string; readonly name: string; readonly signal: AbortSignal },
): Promise<Duplex> {
  const { startStreaming } = await import('../host/process.ts');
  const over = new AbortController();
  const signal = AbortSignal.any([what.signal, over.signal]);
  const child = startStreaming(ctx.env, argv, { effect: 'read', deadline: 0, signal });
  try {
    await connected(child);
  } catch (error) {
    over.abort();
    if (what.signal.aborted)
      throw new Failure('interrupted', `interrupted while talking to "${what.name}"`, { cause: error });
    throw new Failure('guest', `${what.path} in "${what.name}" can't be reached`, {
      ...(error instanceof Failure && error.detail ? { detail: error.detail } : {}),
      hint: `zfsdev inspect ${what.name} tells its state, zfsdev exec ${what.name} -- ls -l ${what.path} what is there`,
      cause: error,
    });
  }
  const duplex = Duplex.from({ writable: child.stdin, readable: child.stdout });
  duplex.on('error', () => undefined);
  duplex.once('close', () => over.abort());
  return duplex;
}

/** Waits for the line that tells that the connection stands; what comes after it stays to be read. */
function connected({ stdout, ended }: StreamingProcess): Promise<void> {
  return new Promise((resolve, reject) => {
    const settle = (error?: Error): void => {
      clearTimeout(timer);
      stdout.off('data', take);
      if (error) reject(error);
      else resolve();
    };
    const take = (chunk: Buffer): void => {
      stdout.pause();
      if (chunk[0] !== 0x0a)
        return settle(new Failure('guest', 'something else answered', { detail: words(chunk) }));
      giveBack(stdout, chunk.subarray(1));
      settle();
    };
    const timer = setTimeout(() => settle(new Error('no answer')), patience);
    stdout.on('data', take);
    stdout.once('end', () => void ended.then(() => settle(new Error('it ended')), settle));
    ended.catch(settle);
  });
}

function giveBack(stream: Readable, rest: Buffer): void {
  if (rest.length > 0) stream.unshift(rest);
}

/** As much of what came as a message can show. */
function words(chunk: Buffer): string {
  return chunk.subarray(0, 200).toString().trim();
}
