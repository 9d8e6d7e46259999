import { Failure } from '../core/errors.ts';

/** Phases of a build, in their order; provision/kernel-build.sh does the same in any builder. */
export const phases = [
  'preflight',
  'source',
  'config',
  'make',
  'modules',
  'zfs',
  'initrd',
  'archive',
] as const;
export type Phase = (typeof phases)[number];

export interface PhaseOptions {
  /** Each line of the phase's output as it comes. */
  readonly onLine: (line: string) => void;
  /** Milliseconds. */
  readonly deadline: number;
  readonly signal: AbortSignal;
}

/** A place where a kernel is built. */
export interface Builder {
  /** How the place is told to the user. */
  readonly title: string;
  /** Its processors are emulated. */
  readonly emulated?: boolean;
  /** Runs one phase and gives its exit code. @throws Failure if the place is lost, `deadline`, `interrupted` */
  run(phase: Phase, options: PhaseOptions): Promise<number>;
  /** Copies a file of the place's out/ to this path of the host. */
  fetch(name: string, target: string): Promise<void>;
  /** What the place takes on the host now, in bytes. */
  used(): Promise<number>;
  /** The most that it took there so far, in bytes, where that is not what its own phases tell. */
  readonly peak?: () => number;
  /** Told after each phase how much is in the place, in bytes. */
  readonly grown?: (work: number) => Promise<void>;
  /** Takes the place away with all that is in it. */
  remove(): Promise<void>;
  /** Lines that say how to go on with what is left of a build that failed, look at it, and get rid of it. */
  readonly afterwards: readonly string[];
  /** How it is begun anew, with other files: in the place of the first of those. */
  readonly anew: string;
}

/** What kernel-build.sh is told behind the phase: a build that goes on may be given other jobs than it began with. */
export function wordsFor(jobs: number | undefined): readonly string[] {
  return jobs === undefined ? [] : [String(jobs)];
}

/** The failure of a phase for which `--timeout` was too short. */
export function outOfTime(phase: Phase, cause: unknown): Failure {
  return new Failure('deadline', `the phase ${phase} did not end in time`, {
    hint: 'give it longer: --timeout 48h --resume',
    cause,
  });
}
