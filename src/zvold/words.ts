import { ZvolError, type ZvolCode } from './errors.ts';

/** What ZFS says when it refuses, and what that means to a client; the first that matches. */
const meanings: readonly (readonly [RegExp, ZvolCode])[] = [
  // The pool can't be asked, which says nothing of what is in it.
  [
    /I\/O is currently suspended|pool I\/O|is suspended|currently unavailable|pool is unavail/i,
    'UNAVAILABLE',
  ],
  [/no such pool|cannot open '[^'/@]+': dataset does not exist|pool is not imported/i, 'UNAVAILABLE'],
  [/modules? (?:are|is) not loaded|\/dev\/zfs|permission denied|must be run as root/i, 'UNAVAILABLE'],
  [/cannot allocate memory|out of memory/i, 'UNAVAILABLE'],
  [/i\/o error|checksum (?:error|mismatch)|corrupt data|input\/output error/i, 'DATA_LOSS'],
  [
    /out of space|no space left|quota exceeded|size is greater than available|insufficient|exceeds (?:the )?(?:quota|available)|not enough space/i,
    'RESOURCE_EXHAUSTED',
  ],
  // A device that is somebody's, of the words for a pool that is to be made.
  [
    /is part of|contains a (?:filesystem|corrupt)|is currently (?:mounted|in use)|device is too small|is in use/i,
    'FAILED_PRECONDITION',
  ],
  [/already exists/i, 'ALREADY_EXISTS'],
  [
    /is busy|has (?:children|dependent clones|clones)|more recent snapshots|mounted|held|cannot receive|read-?only|was modified/i,
    'FAILED_PRECONDITION',
  ],
  [/does not exist|no such (?:tag|dataset|snapshot|device)|could not find any snapshots/i, 'NOT_FOUND'],
  [/timed out/i, 'DEADLINE_EXCEEDED'],
  [
    /invalid|bad (?:property|numeric)|must be|too (?:long|short|large)|missing|is not a|multiple of|unsupported|out of range/i,
    'INVALID_ARGUMENT',
  ],
  [/cannot (?:promote|destroy|rename|rollback)/i, 'FAILED_PRECONDITION'],
];

/** Names, in quotes; and those of datasets in a line of their own, or of a snapshot before what is wrong with it. */
const names = /'[^'\n]*'|^[^\s/]+[/@]\S+$|[^\s']+@[^\s']+(?=: )/gm;

/** ZFS's words as a failure. */
export function classify(stderr: string): ZvolError {
  const lines = stderr.split('\n').filter((line) => line.trim() !== '' && !line.startsWith('usage:'));
  // A volume may be called "mounted", which says nothing of what is wrong.
  const nameless = stderr.replaceAll(names, (name) => (/[/@]/.test(name) ? "'/'" : name));
  const [, code = 'INTERNAL'] = meanings.find(([pattern]) => pattern.test(nameless)) ?? [];
  // The first line of zpool is a heading, and what is wrong stands below.
  const [first = '', ...more] = lines;
  const words = /^invalid vdev specification/.test(first)
    ? more.filter((line) => !line.startsWith("use '-f'")).join('; ')
    : first;
  return new ZvolError(code, words === '' ? 'ZFS refused, and did not say why' : words);
}

/** The numbers with which the kernel refuses a step of a channel program. */
const numbers: Readonly<Record<number, readonly [code: ZvolCode, words: string]>> = {
  2: ['NOT_FOUND', 'dataset does not exist'],
  5: ['DATA_LOSS', 'I/O error'],
  11: ['ABORTED', 'there is a snapshot of the same moment'],
  16: ['FAILED_PRECONDITION', 'dataset is busy'],
  17: ['ALREADY_EXISTS', 'dataset already exists'],
  22: ['INVALID_ARGUMENT', 'invalid argument'],
  28: ['RESOURCE_EXHAUSTED', 'out of space'],
  30: ['FAILED_PRECONDITION', 'the pool is read-only'],
  36: ['INVALID_ARGUMENT', 'the name is too long'],
  122: ['RESOURCE_EXHAUSTED', 'quota exceeded'],
};

/** A number of the kernel's as a failure. */
export function failureOf(what: string, number: number): ZvolError {
  const [code, words] = numbers[number] ?? ['INTERNAL', `error ${number}`];
  return new ZvolError(code, `${what}: ${words}`);
}
