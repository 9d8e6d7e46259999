import type { Server } from '@grpc/grpc-js';
import { fromJSON } from '@grpc/proto-loader';
import { ReflectionService } from '@grpc/reflection';
import { contract } from './contract.ts';
import { conversion } from './definitions.ts';

/** The library that tells what is in the contracts; only to be imported when somebody asks (standard-services.ts). */
export function reflectionService(): { addToServer: (server: Pick<Server, 'addService'>) => void } {
  return new ReflectionService(fromJSON(contract as unknown as Parameters<typeof fromJSON>[0], conversion));
}
