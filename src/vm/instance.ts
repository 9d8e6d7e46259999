import type { InstanceName } from '../core/names.ts';
import type { Spec } from '../template/spec.ts';
import type { State } from './state.ts';

export type Status = 'creating' | 'starting' | 'running' | 'stopped' | 'broken';

/** An instance whose files are whole. */
export interface Instance {
  readonly name: InstanceName;
  readonly spec: Spec;
  readonly state: State;
}

/** What a look at an instance gives; looking never throws, a damaged one is `broken` with the reason. */
export type Inspection =
  | {
      readonly status: 'creating' | 'starting' | 'running' | 'stopped';
      readonly name: InstanceName;
      readonly instance: Instance;
      readonly protected: boolean;
      readonly pid?: number;
    }
  | {
      readonly status: 'broken';
      readonly name: InstanceName;
      readonly reason: string;
      readonly protected: boolean;
      /** What could be read all the same. */
      readonly instance?: Instance;
      readonly pid?: number;
    };
