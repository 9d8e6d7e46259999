import { createServer, type Socket } from 'node:net';
import { createInterface } from 'node:readline';

/** The greeting of QEMU 7.2.22, as recorded. */
export const greeting =
  '{"QMP": {"version": {"qemu": {"micro": 22, "minor": 2, "major": 7}, "package": "Debian 1:7.2+dfsg-7+deb12u18+b3"}, "capabilities": ["oob"]}}';

export interface Request {
  readonly execute: string;
  readonly arguments?: Readonly<Record<string, unknown>>;
  readonly id?: number;
}

/** One expected command and what the peer does then. */
export interface Expected {
  readonly execute: string;
  readonly arguments?: Readonly<Record<string, unknown>>;
  readonly reply: (request: Request, peer: { send: (line: unknown) => void; socket: Socket }) => void;
}

/** Expects a command and returns this. */
export function returns(execute: string, value: unknown = {}, args?: Expected['arguments']): Expected {
  return {
    execute,
    ...(args === undefined ? {} : { arguments: args }),
    reply: ({ id }, { send }) => send({ return: value, id }),
  };
}

/** Expects a command and refuses it. */
export function refuses(execute: string, kind: string, desc: string): Expected {
  return { execute, reply: ({ id }, { send }) => send({ id, error: { class: kind, desc } }) };
}

export interface QmpPeer {
  /** Fails if a command came that was not expected, or one that was did not come. */
  verify(): void;
  close(): Promise<void>;
}

/** Listens on a Unix socket as QEMU would and plays a script; anything off the script is recorded and refused. */
export async function qmpPeer(
  path: string,
  script: readonly Expected[],
  options: { readonly greeting?: string | null } = {},
): Promise<QmpPeer> {
  const left = [returns('qmp_capabilities'), ...script];
  const unexpected: string[] = [];
  const sockets = new Set<Socket>();
  const server = createServer((socket) => {
    sockets.add(socket);
    socket.on('error', () => undefined);
    const send = (line: unknown): void => void socket.write(`${JSON.stringify(line)}\r\n`);
    const greets = options.greeting === undefined ? greeting : options.greeting;
    if (greets !== null) socket.write(`${greets}\r\n`);
    createInterface({ input: socket }).on('line', (line) => {
      const request = JSON.parse(line) as Request;
      const next = left.shift();
      if (
        next?.execute !== request.execute ||
        JSON.stringify(next.arguments) !== JSON.stringify(request.arguments)
      ) {
        unexpected.push(line);
        send({ id: request.id, error: { class: 'GenericError', desc: `the test did not expect ${line}` } });
      } else next.reply(request, { send, socket });
    });
  });
  await new Promise<void>((resolve) => server.listen(path, resolve));
  return {
    verify: () => {
      if (unexpected.length > 0) throw new Error(`unexpected commands:\n${unexpected.join('\n')}`);
      if (left.length > 0)
        throw new Error(`these did not come: ${left.map(({ execute }) => execute).join(', ')}`);
    },
    close: () =>
      new Promise((resolve) => {
        for (const socket of sockets) socket.destroy();
        server.close(() => resolve());
      }),
  };
}
