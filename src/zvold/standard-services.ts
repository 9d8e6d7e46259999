import {
  status,
  type handleBidiStreamingCall,
  type Server,
  type ServerDuplexStream,
  type ServiceDefinition,
} from '@grpc/grpc-js';
import { EventEmitter } from 'node:events';
import { serviceDefinition } from './definitions.ts';
import { wordsOf, ZvolError } from './errors.ts';
import type { PoolWatch } from './pool-watch.ts';
import { streaming, text, unary, type Rpc } from './rpc.ts';

/** grpc.health.v1, of which there is no more to know than this. */
const health = {
  nested: {
    grpc: {
      nested: {
        health: {
          nested: {
            v1: {
              nested: {
                Health: {
                  methods: {
                    Check: { requestType: 'HealthCheckRequest', responseType: 'HealthCheckResponse' },
                    List: { requestType: 'HealthListRequest', responseType: 'HealthListResponse' },
                    Watch: {
                      requestType: 'HealthCheckRequest',
                      responseType: 'HealthCheckResponse',
                      responseStream: true,
                    },
                  },
                },
                HealthListRequest: { fields: {} },
                HealthListResponse: {
                  fields: { statuses: { keyType: 'string', type: 'HealthCheckResponse', id: 1 } },
                },
                HealthCheckRequest: { fields: { service: { type: 'string', id: 1 } } },
                HealthCheckResponse: {
                  fields: { status: { type: 'ServingStatus', id: 1 } },
                  nested: {
                    ServingStatus: {
                      values: { UNKNOWN: 0, SERVING: 1, NOT_SERVING: 2, SERVICE_UNKNOWN: 3 },
                    },
                  },
                },
              },
            },
          },
        },
      },
    },
  },
} as const;

/** Tells whether services can answer: as long as their pool can be asked. */
export function addHealth(server: Server, services: readonly string[], watch: PoolWatch, rpc: Rpc): void {
  const known = ['', ...services];
  const statusOf = (usable: boolean): { status: string } => ({ status: usable ? 'SERVING' : 'NOT_SERVING' });
  server.addService(serviceDefinition(health, 'grpc.health.v1.Health'), {
    Check: unary(rpc, async (request) => {
      const service = text(request, 'service');
      if (!known.includes(service))
        throw new ZvolError(
          'NOT_FOUND',
          `there is no service "${service}": there are ${services.join(', ')}`,
        );
      return statusOf(await watch.look());
    }),
    List: unary(rpc, async () => {
      const now = statusOf(await watch.look());
      return { statuses: Object.fromEntries(known.map((service) => [service, now])) };
    }),
    Watch: streaming(rpc, async function* (request, signal) {
      if (!known.includes(text(request, 'service'))) {
        yield { status: 'SERVICE_UNKNOWN' };
        // The protocol wants the call to stay: its service may come to be known, which here it never does.
        await new Promise<void>((resolve) =>
          signal.addEventListener('abort', () => resolve(), { once: true }),
        );
        return;
      }
      for await (const usable of watch.changes(signal)) yield statusOf(usable);
    }),
  });
}

type Reflecting = handleBidiStreamingCall<object, object>;

/** A version of the reflection service, as the library would add it to a server. */
interface Reflection {
  readonly definition: ServiceDefinition;
  readonly handler: Reflecting;
}

const method = 'ServerReflectionInfo';
const asItIs = (bytes: Buffer): Buffer => bytes;

/**
 * Tells clients what services there are. The library for it reads every message of every contract, so it is loaded when
 * somebody first asks; until then a call's bytes are taken as they are.
 */
export function addReflection(server: Server, report: (words: string) => void): void {
  let loaded: Promise<ReadonlyMap<string, Reflection>> | undefined;
  for (const name of ['grpc.reflection.v1.ServerReflection', 'grpc.reflection.v1alpha.ServerReflection']) {
    const path = `/${name}/${method}`;
    const stub = {
      path,
      requestStream: true,
      responseStream: true,
      requestSerialize: asItIs,
      requestDeserialize: asItIs,
      responseSerialize: asItIs,
      responseDeserialize: asItIs,
    };
    server.addService(
      { [method]: stub },
      {
        [method]: (call: ServerDuplexStream<Buffer, Buffer>) => {
          loaded ??= load();
          loaded
            .then((all) => reflect(call, all.get(path)))
            .catch((error: unknown) => {
              // Its client went.
              if (call.cancelled) return;
              report(`reflection failed: ${wordsOf(error)}`);
              call.emit('error', { code: status.INTERNAL, details: 'the services can not be told' });
            });
        },
      },
    );
  }
}

async function load(): Promise<ReadonlyMap<string, Reflection>> {
  const { reflectionService } = await import('./reflection.ts');
  const found = new Map<string, Reflection>();
  // All that the library asks of a server.
  const server = {
    addService: (definition: ServiceDefinition, handlers: Record<string, Reflecting>): void => {
      const path = definition[method]?.path;
      const handler = handlers[method];
      if (path !== undefined && handler) found.set(path, { definition, handler });
    },
  };
  reflectionService().addToServer(server);
  return found;
}

/** Puts the library's handler, which takes messages, to a call of bytes. */
function reflect(call: ServerDuplexStream<Buffer, Buffer>, reflection: Reflection | undefined): void {
  const coder = reflection?.definition[method];
  if (!reflection || !coder) throw new Error('the library has another service');
  const stream = Object.assign(new EventEmitter(), {
    write: (message: object) => call.write(coder.responseSerialize(message)),
    end: () => call.end(),
  });
  reflection.handler(stream as unknown as ServerDuplexStream<object, object>);
  call.on('data', (bytes: Buffer) => {
    let message: object;
    try {
      message = coder.requestDeserialize(bytes) as object;
    } catch {
      call.emit('error', { code: status.INTERNAL, details: 'that is no message of this contract' });
      return;
    }
    stream.emit('data', message);
  });
  call.once('end', () => stream.emit('end'));
}
