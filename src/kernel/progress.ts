/** Objects for each option that is set: 1447 for 833 in a tinyconfig of Linux 6.12 with a guest's options. */
const objectsPerOption = 1.75;

/**
 * A line of the kernel's make that tells of an object made by a compiler: `  CC [M]  fs/ext4/super.o`. What only puts objects
 * together (AR, LD) is done in a moment, and there is one of them for nearly every other object.
 */
export const objectLine = /^ {2}(CC|AS)(?: \[M\])? +\S+\.o$/;

/**
 * What an object takes of a processor's time against gen_init_cpio.c, which the pipeline compiles and links for a measure. From a
 * single build of that tinyconfig on a busy host: 710 s, against 0.125 s. `npm run bench -- kernel` tells what both numbers are
 * on another host.
 */
export const costOfObject = 3.9;

/**
 * The same for an emulated processor, on which what is over soon takes longest, as each program is translated while it starts.
 * From a single build in a machine of two such processors: 6626 s, against 1.68 s.
 */
const costOfEmulatedObject = 2.7;

/** How many objects a configuration makes, and how long that takes: an estimate, to be told as one. */
export interface Estimate {
  readonly objects: number;
  /** Undefined where nothing was measured. */
  readonly milliseconds: number | undefined;
}

/**
 * @param options how many options of the configuration are set.
 * @param cost milliseconds of a processor for the file that is compiled for a measure; 0 if it could not be.
 * @param jobs compilers at once.
 * @param emulated whether the processor is emulated.
 */
export function estimateMake(options: number, cost: number, jobs: number, emulated = false): Estimate {
  const objects = Math.max(1, Math.round(options * objectsPerOption));
  const each = cost * (emulated ? costOfEmulatedObject : costOfObject);
  const milliseconds = cost > 0 && jobs > 0 ? (objects * each) / jobs : undefined;
  return { objects, milliseconds };
}

/** A span of time that is an estimate, for people: no more exact than it can be. */
export function roughly(milliseconds: number): string {
  const minutes = milliseconds / 60_000;
  if (minutes < 1) return 'a minute';
  if (minutes < 10) return `${Math.ceil(minutes)} min`;
  if (minutes < 90) return `${Math.round(minutes / 5) * 5} min`;
  return `${Math.round(minutes / 30) / 2} hours`;
}

/** @param rate objects a second. */
function speed(rate: number): string {
  return rate < 1 ? `${(rate * 60).toFixed(0)}/min` : `${rate.toFixed(rate < 10 ? 1 : 0)}/s`;
}

/** How far a make is, from its own lines. The number of all objects is an estimate, and told as one. */
export interface Meter {
  /** Takes a line, and gives what to show if that changed. */
  take(line: string): { readonly text: string; readonly fraction: number } | undefined;
}

/**
 * @param options how many options of the configuration are set.
 * @param now milliseconds, of a clock that only goes forward.
 */
export function makeMeter(options: number, now: () => number = () => performance.now()): Meter {
  const begun = now();
  const { objects: estimate } = estimateMake(options, 0, 0);
  let done = 0;
  return {
    take: (line) => {
      if (!objectLine.test(line)) return undefined;
      done += 1;
      const seconds = Math.max(0.001, (now() - begun) / 1000);
      const rate = done / seconds;
      const total = Math.max(estimate, done);
      const text = `${done} of about ${total} objects, ${speed(rate)}`;
      return { text, fraction: Math.min(0.99, done / total) };
    },
  };
}
