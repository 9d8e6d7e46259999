/** Objects of a kernel for each option that is set, measured: tinyconfig with a guest's options, defconfig, Debian's cloud. */
const objectsPerOption = 1.9;

/** A line of the kernel's make that tells of an object made: `  CC [M]  fs/ext4/super.o`. */
export const objectLine = /^ {2}(CC|AS|LD|AR)(?: \[M\])? +\S+\.(?:o|a|ko)$/;

/**
 * What an object takes a processor against gen_init_cpio.c, which the pipeline compiles for a measure. Roughly, from a single
 * build of a tinyconfig with a guest's options on a busy host: about 560 s for an estimate of 1583 objects, against 0.22 s.
 * `npm run bench -- kernel` tells what it is on another host.
 */
export const costOfObject = 1.6;

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
 */
export function estimateMake(options: number, cost: number, jobs: number): Estimate {
  const objects = Math.max(1, Math.round(options * objectsPerOption));
  const milliseconds = cost > 0 && jobs > 0 ? (objects * cost * costOfObject) / jobs : undefined;
  return { objects, milliseconds };
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
      const text = `${done} of about ${total} objects, ${rate.toFixed(rate < 10 ? 1 : 0)}/s`;
      return { text, fraction: Math.min(0.99, done / total) };
    },
  };
}
