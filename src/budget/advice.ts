const GB = 10 ** 9;

/** What a host with so much free space can do, after the project's sizing guide. */
export interface Advice {
  /** The least free space it is meant for, in bytes. */
  readonly from: number;
  readonly verdict: string;
  /** What must be done for it to go well. */
  readonly steps: readonly string[];
}

/** From most to least free space; the last one is for every host with less. */
const scenarios: readonly Advice[] = [
  {
    from: 50 * GB,
    verdict: 'plenty: a machine for ZFS and one for building, side by side',
    steps: ['zfsdev up zfs-test', 'zfsdev up kernel-build'],
  },
  {
    from: 20 * GB,
    verdict: 'enough for a machine for ZFS and one for building, if the second is deleted after use',
    steps: [
      'zfsdev up zfs-test',
      'zfsdev up kernel-build, take out what it built, then at once: zfsdev delete --force kernel-build',
    ],
  },
  {
    from: 10 * GB,
    verdict: 'tight: a machine for ZFS only, or the combined one with care',
    steps: [
      'zfsdev up zfs-test',
      'or zfsdev up combined, and after each build: zfsdev clean combined (sources, packages, trim)',
      'watch it: zfsdev usage',
    ],
  },
  {
    from: 5 * GB,
    verdict: 'a machine for ZFS, and nothing that builds',
    steps: ['zfsdev up zfs-test', 'regularly: zfsdev trim zfs-test'],
  },
  {
    from: 0,
    verdict: 'too little for any machine',
    steps: ['make room first: zfsdev usage, zfsdev warm prune, zfsdev image prune, zfsdev delete NAME'],
  },
];

/** The scenario for so many free bytes. */
export function adviceFor(free: number): Advice {
  const fitting = scenarios.find(({ from }) => free >= from);
  if (!fitting) throw new RangeError(`free space of ${free} bytes`);
  return fitting;
}
