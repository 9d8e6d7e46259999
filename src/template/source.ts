import {
  isAlias,
  isMap,
  isPair,
  isScalar,
  isSeq,
  LineCounter,
  parseDocument,
  visit,
  type Document,
  type Node,
  type Pair,
} from 'yaml';
import { Failure, messageOf } from '../core/errors.ts';
import { checkTemplate, type KeyPath, type KeyProblem, type Template } from './schema.ts';

/** Where something stands in a template's file; both count from 1. */
export interface Position {
  readonly line: number;
  readonly column: number;
}

/** One thing that is wrong in a template's file. */
export interface Problem extends Position {
  /** The key, with its parents: `pool.fileSize`, `storage[0].size`; empty for the file as a whole. */
  readonly key: string;
  readonly message: string;
}

/** A template that was read and is right key by key, with the way back to its file's lines. */
export interface TemplateSource {
  /** The template's name, or the path as the user gave it. */
  readonly template: string;
  /** The file, as errors name it. */
  readonly file: string;
  readonly builtIn: boolean;
  readonly values: Template;
  /** The failure for problems that only show once all values and flags are known. */
  readonly fail: (problems: readonly KeyProblem[]) => Failure;
}

/**
 * Reads a template's text.
 * @throws Failure `template` that lists every problem with file, line, column and key.
 */
export function parseTemplate(
  text: string,
  origin: { readonly template: string; readonly file: string; readonly builtIn: boolean },
): TemplateSource {
  const lines = new LineCounter();
  const document = parseDocument(text, { lineCounter: lines });
  const positionAt = (offset: number): Position => {
    const { line, col } = lines.linePos(offset);
    return { line, column: col };
  };
  const broken = syntaxProblems(document).map(({ offset, message }) => ({
    ...positionAt(offset),
    key: '',
    message,
  }));
  if (broken.length > 0) throw templateFailure(origin.file, broken);
  const fail = (problems: readonly KeyProblem[]): Failure =>
    templateFailure(
      origin.file,
      problems.map((problem) => ({
        ...positionAt(offsetOf(document, problem)),
        key: keyName(problem.path),
        message: problem.message,
      })),
    );
  const checked = checkTemplate(plainValue(document, origin.file));
  if ('problems' in checked) throw fail(checked.problems);
  return { ...origin, values: checked.template, fail };
}

function syntaxProblems(document: Document.Parsed): { offset: number; message: string }[] {
  const problems = [...document.errors, ...document.warnings].map((error) => ({
    offset: error.pos[0],
    // The rest of yaml's message repeats the position and quotes the line.
    message: (error.message.split('\n')[0] ?? '').replace(/ at line \d+, column \d+:?$/, ''),
  }));
  visit(document, {
    Alias: (_, alias) => {
      if (alias.resolve(document)) return;
      const message = `there is no anchor &${alias.source} before this alias`;
      problems.push({ offset: alias.range?.[0] ?? 0, message });
    },
  });
  return problems;
}

function plainValue(document: Document, file: string): unknown {
  try {
    return document.toJS();
  } catch (error) {
    // An alias that expands without end, or to itself.
    throw templateFailure(file, [{ line: 1, column: 1, key: '', message: messageOf(error) }]);
  }
}

/** Offset of a key or its value; of the nearest parent that is there, where it is not. */
function offsetOf(document: Document, { path, at }: KeyProblem): number {
  let node: unknown = document.contents;
  let offset = document.contents?.range?.[0] ?? 0;
  for (const [depth, key] of path.entries()) {
    const map = isAlias(node) ? node.resolve(document) : node;
    if (isSeq(map)) {
      const item = map.items[Number(key)];
      if (!isNode(item)) break;
      offset = rangeStart(item) ?? offset;
      node = item;
      continue;
    }
    const pair = isMap(map) ? map.items.find((item) => isPair(item) && keyText(item) === key) : undefined;
    if (!pair) break;
    const last = depth === path.length - 1;
    const keyOffset = rangeStart(pair.key) ?? offset;
    // An empty value has a range that points behind the colon: the key is easier to find.
    const empty = !isNode(pair.value) || (isScalar(pair.value) && pair.value.value === null);
    offset = last && at === 'value' && !empty ? (rangeStart(pair.value) ?? keyOffset) : keyOffset;
    node = pair.value;
  }
  return offset;
}

/** Indexes of the one list in brackets, all else joined by dots. */
function keyName([first = '', ...rest]: KeyPath): string {
  return rest.reduce((name, key) => {
    const isIndex = name === 'storage' && /^\d+$/.test(key);
    return isIndex ? `${name}[${key}]` : `${name}.${key}`;
  }, first);
}

function keyText(pair: Pair): string {
  return isScalar(pair.key) ? String(pair.key.value) : '';
}

function isNode(value: unknown): value is Node {
  return typeof value === 'object' && value !== null && 'range' in value;
}

function rangeStart(node: unknown): number | undefined {
  return isNode(node) ? node.range?.[0] : undefined;
}

function templateFailure(file: string, problems: readonly Problem[]): Failure {
  const sorted = [...problems].sort((a, b) => a.line - b.line || a.column - b.column);
  const lines = sorted.map(
    ({ line, column, key, message }) =>
      `${file}:${line}:${column}: ${key === '' ? '' : `${key}: `}${message}`,
  );
  const hint = 'correct the file and try again; docs/templates.md describes every key';
  const data = { problems: sorted.map((problem) => ({ file, ...problem })) };
  const [only, ...more] = lines;
  if (only !== undefined && more.length === 0) return new Failure('template', only, { hint, data });
  return new Failure('template', `${file} has ${lines.length} problems`, {
    detail: lines.join('\n'),
    hint,
    data,
  });
}
