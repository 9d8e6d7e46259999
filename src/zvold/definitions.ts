import type { ServiceDefinition } from '@grpc/grpc-js';
import protobuf from 'protobufjs/light.js';

/** How messages are given to the code: 64 bit numbers as numbers, enums by name, all fields there. */
export const conversion = { longs: Number, enums: String, defaults: true, oneofs: true } as const;

/** A call of a contract, as protobuf's JSON has it. */
interface Method {
  readonly requestType: string;
  readonly responseType: string;
  readonly requestStream?: boolean;
  readonly responseStream?: boolean;
}

interface Namespace {
  readonly nested?: Readonly<Record<string, unknown>>;
}

interface Coder {
  readonly serialize: (message: object) => Buffer;
  readonly deserialize: (bytes: Buffer) => object;
}

/**
 * A service as the gRPC library takes it, of a contract in protobuf's JSON. Nothing is built before it is used: most starts of
 * the daemon are for one call, and to build what all of the messages need takes an emulated machine seconds.
 * @param name of the service, with its package.
 */
export function serviceDefinition(contract: Namespace, name: string): ServiceDefinition {
  let root: protobuf.Root | undefined;
  const coders = new Map<string, Coder>();
  const coderOf = (type: string): Coder => {
    const known = coders.get(type);
    if (known) return known;
    root ??= protobuf.Root.fromJSON(contract as protobuf.INamespace);
    const coder = coderFor(root.lookupType(`${name.slice(0, name.lastIndexOf('.'))}.${type}`));
    coders.set(type, coder);
    return coder;
  };
  const lazily = (type: string): Coder => ({
    serialize: (message) => coderOf(type).serialize(message),
    deserialize: (bytes) => coderOf(type).deserialize(bytes),
  });
  return Object.fromEntries(
    Object.entries(methodsOf(contract, name)).map(([method, { requestType, responseType, ...streams }]) => {
      const [request, response] = [lazily(requestType), lazily(responseType)];
      const definition = {
        path: `/${name}/${method}`,
        requestStream: streams.requestStream === true,
        responseStream: streams.responseStream === true,
        requestSerialize: request.serialize,
        requestDeserialize: request.deserialize,
        responseSerialize: response.serialize,
        responseDeserialize: response.deserialize,
        // The name that handlers have where they are written with a small letter.
        originalName: method.charAt(0).toLowerCase() + method.slice(1),
      };
      return [method, definition];
    }),
  );
}

function methodsOf(contract: Namespace, name: string): Readonly<Record<string, Method>> {
  const service = name
    .split('.')
    .reduce<Namespace | undefined>((place, word) => place?.nested?.[word] as Namespace | undefined, contract);
  const { methods } = (service ?? {}) as { methods?: Readonly<Record<string, Method>> };
  if (!methods) throw new Error(`the contract has no service ${name}`);
  return methods;
}

function coderFor(type: protobuf.Type): Coder {
  return {
    serialize: (message) => Buffer.from(type.encode(type.fromObject(message)).finish()),
    deserialize: (bytes) => type.toObject(type.decode(bytes), conversion),
  };
}
