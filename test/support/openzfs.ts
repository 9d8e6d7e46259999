/** Tests of one folder of OpenZFS's own suite, which share a setup and a cleanup. */
export interface Group {
  /** Below the suite's folder: `tests/functional/zvol/zvol_cli`. */
  readonly folder: string;
  readonly tests: readonly string[];
}

/** What became of each script, by its path below the suite's folder; setups and cleanups are there like tests. */
export type Outcomes = ReadonlyMap<string, Outcome>;

export interface Outcome {
  readonly result: string;
  /** As the suite writes it: minutes and seconds. */
  readonly took: string;
}

/** The groups of OpenZFS's runfiles that run on Linux and whose folder begins so; those of one folder are one group. */
export function groupsOf(runfiles: string, beginning: string): Group[] {
  const found = new Map<string, string[]>();
  for (const [, folder = '', tests = ''] of runfiles.matchAll(
    /^\[(tests\/[^\]:]+)(?::Linux)?\]\ntests = \[([^\]]*)\]/gm,
  )) {
    if (!folder.startsWith(beginning)) continue;
    const names = [...tests.matchAll(/'([^']+)'/g)].map(([, name = '']) => name);
    found.set(folder, [...(found.get(folder) ?? []), ...names]);
  }
  return [...found].map(([folder, tests]) => ({ folder, tests }));
}

/**
 * Of the groups the tests whose paths hold one of these words; all of them where there are none.
 * @throws Error for a word that no test has
 */
export function groupsChosen(groups: readonly Group[], words: readonly string[]): Group[] {
  if (words.length === 0) return [...groups];
  const paths = groups.flatMap(({ folder, tests }) => tests.map((name) => `${folder}/${name}`));
  const unknown = words.filter((word) => !paths.some((path) => path.includes(word)));
  if (unknown.length > 0) throw new Error(`there is no test ${unknown.join(', ')} among ${paths.join(', ')}`);
  return groups
    .map(({ folder, tests }) => ({
      folder,
      tests: tests.filter((name) => words.some((word) => `${folder}/${name}`.includes(word))),
    }))
    .filter(({ tests }) => tests.length > 0);
}

/** A runfile of these groups. @param timeout seconds for each script; the suite's own is for machines that are not emulated */
export function runfileOf(groups: readonly Group[], timeout: number): string {
  const common = [
    ...[
      '[DEFAULT]',
      'pre = setup',
      'quiet = False',
      'pre_user = root',
      'user = root',
      `timeout = ${timeout}`,
    ],
    ...['post_user = root', 'post = cleanup', 'failsafe_user = root', 'failsafe = callbacks/zfs_failsafe'],
    "tags = ['functional']",
  ];
  const sections = groups.flatMap(({ folder, tests }) => [
    '',
    `[${folder}]`,
    `tests = [${tests.map((name) => `'${name}'`).join(', ')}]`,
    "tags = ['functional']",
  ]);
  return [...common, ...sections, ''].join('\n');
}

/** Reads what the suite prints; the later one of two lines of one script counts. */
export function outcomesOf(output: string): Outcomes {
  const lines = output.matchAll(
    /Test(?: \(\w+\))?: \S*?\/(tests\/\S+) \(run as [^)]+\) +\[([\d:]+)\] \[(\w+)\]/g,
  );
  return new Map([...lines].map(([, path = '', took = '', result = '']) => [path, { result, took }]));
}

/** The scripts that failed or were killed; skipped ones did not. */
export function failuresOf(outcomes: Outcomes): string[] {
  return [...outcomes].filter(([, { result }]) => !['PASS', 'SKIP'].includes(result)).map(([path]) => path);
}

/** The tests that were to run, and of which nothing was said. */
export function missingOf(groups: readonly Group[], outcomes: Outcomes): string[] {
  return groups.flatMap(({ folder, tests }) =>
    tests.map((name) => `${folder}/${name}`).filter((path) => !outcomes.has(path)),
  );
}

/** Of the groups what these failures are about: the tests that failed; all of them where a setup or a cleanup did. */
export function groupsAbout(groups: readonly Group[], failures: readonly string[]): Group[] {
  return groups.flatMap(({ folder, tests }): Group[] => {
    const names = failures
      .filter((path) => path.startsWith(`${folder}/`))
      .map((path) => path.slice(folder.length + 1));
    if (names.length === 0) return [];
    return names.every((name) => tests.includes(name)) ? [{ folder, tests: names }] : [{ folder, tests }];
  });
}

/** Whether a test of the suite may be under way: the script before it is done, and it is not. */
export function mayBeRunning(groups: readonly Group[], outcomes: Outcomes, test: string): boolean {
  const group = groups.find(({ tests }) => tests.includes(test));
  if (!group) return false;
  const before = group.tests[group.tests.indexOf(test) - 1] ?? 'setup';
  return outcomes.has(`${group.folder}/${before}`) && !outcomes.has(`${group.folder}/${test}`);
}

/** How many ended how: `12 PASS, 1 FAIL`. */
export function countsOf(outcomes: Outcomes): string {
  const counts = new Map<string, number>();
  for (const { result } of outcomes.values()) counts.set(result, (counts.get(result) ?? 0) + 1);
  return [...counts].map(([result, count]) => `${count} ${result}`).join(', ');
}
