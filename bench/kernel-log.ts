import { costOfObject, estimateMake, objectLine } from '../src/kernel/progress.ts';

/** What the log of `build-kernel` tells of a build; times in seconds. */
export interface KernelLog {
  /** From the beginning of the phase source to the end of modules: what is done by hand as well. */
  readonly phases: number;
  readonly make: number;
  /** OpenZFS with its configure; without it the tidying up. */
  readonly zfs: number;
  /** What its objects cost a processor, whatever else the host was at. */
  readonly cost: () => ObjectCost;
}

export interface ObjectCost {
  readonly objects: number;
  readonly estimated: number;
  /** What objectsPerOption would have to be for the number to have been right. */
  readonly perOption: number;
  /** Seconds of a processor. */
  readonly perObject: number;
  /** Against the file that the pipeline compiles for a measure. */
  readonly ofMeasure: number;
  /** What costOfObject would have to be for the estimate of the time to have been right, with objectsPerOption as it is. */
  readonly fitted: number;
}

/** @throws Error if the log is not one of a build that went through */
export function readKernelLog(text: string): KernelLog {
  const lines = text.split('\n');
  const begun = new Map<string, number>();
  const facts = new Map<string, number>();
  let objects = 0;
  let phase = '';
  for (const line of lines) {
    const heading = /^--- (\w+) \((\S+)\)$/.exec(line);
    if (heading?.[1] && heading[2]) {
      phase = heading[1];
      begun.set(phase, Date.parse(heading[2]) / 1000);
    }
    const fact = /^@ (\w+) (\d+)$/.exec(line);
    if (fact?.[1]) facts.set(fact[1], Number(fact[2]));
    if (phase === 'make' && objectLine.test(line)) objects += 1;
  }
  const at = (name: string): number => begun.get(name) ?? missing(name);
  const make = at('modules') - at('make');
  return {
    phases: at('zfs') - at('source'),
    make,
    zfs: at('initrd') - at('zfs'),
    cost: () => {
      const measure = (facts.get('cost') ?? missing('cost')) / 1000;
      const options = facts.get('options') ?? missing('options');
      const { objects: estimated, milliseconds = 0 } = estimateMake(options, measure * 1000, 1);
      const cpu = facts.get('cpu') ?? missing('cpu');
      const perObject = cpu / 1000 / Math.max(1, objects);
      const fitted = (costOfObject * cpu) / milliseconds;
      const perOption = objects / options;
      return { objects, estimated, perOption, perObject, ofMeasure: perObject / measure, fitted };
    },
  };
}

function missing(what: string): never {
  throw new Error(`the log of the build does not tell of ${what}`);
}
