import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { Failure, hasCode, messageOf } from '../core/errors.ts';
import { nearest } from '../core/names.ts';
import { findPackageRoot } from '../host/package-root.ts';
import { parseTemplate, type TemplateSource } from './source.ts';

/** The folder of the templates that come with zfsdev. */
export function templateFolder(): string {
  return join(findPackageRoot(), 'templates');
}

/** Names of the templates that come with zfsdev, sorted. */
export async function listTemplates(folder: string = templateFolder()): Promise<string[]> {
  try {
    const files = await readdir(folder);
    return files
      .filter((file) => file.endsWith('.yaml'))
      .map((file) => file.slice(0, -'.yaml'.length))
      .sort();
  } catch (error) {
    throw new Failure('files', `${folder} can't be read: ${messageOf(error)}`, {
      hint: 'install zfsdev again',
      cause: error,
    });
  }
}

/** True for the path of a file, false for the name of a template: paths have a slash or end in .yaml or .yml. */
export function isTemplatePath(nameOrPath: string): boolean {
  return nameOrPath.includes('/') || /\.ya?ml$/i.test(nameOrPath);
}

/**
 * Reads one of our templates by its name, or a user's own by its path.
 * @throws Failure `template`: there is none of that name (with the nearest), it can't be read, or it is wrong (with
 *   file, line, column and key of every problem).
 */
export async function loadTemplate(
  nameOrPath: string,
  folder: string = templateFolder(),
): Promise<TemplateSource> {
  if (isTemplatePath(nameOrPath)) {
    const text = await readTemplate(nameOrPath, 'zfsdev up zfs-test takes a template of ours instead');
    return parseTemplate(text, { template: nameOrPath, file: nameOrPath, builtIn: false });
  }
  const names = await listTemplates(folder);
  if (!names.includes(nameOrPath)) throw unknownTemplate(nameOrPath, names);
  const file = join(folder, `${nameOrPath}.yaml`);
  const text = await readTemplate(file, 'install zfsdev again');
  return parseTemplate(text, { template: nameOrPath, file, builtIn: true });
}

function unknownTemplate(name: string, names: readonly string[]): Failure {
  const near = nearest(name, names);
  const list = `the templates are ${names.join(', ')}`;
  return new Failure('template', `there is no template ${JSON.stringify(name)}`, {
    hint: `${near === undefined ? list : `did you mean "${near}"? ${list}`}\na file of your own is given as a path: ./${name}.yaml`,
    data: { template: name, templates: names, ...(near === undefined ? {} : { nearest: near }) },
  });
}

async function readTemplate(file: string, hint: string): Promise<string> {
  try {
    return await readFile(file, 'utf8');
  } catch (error) {
    const why = hasCode(error, 'ENOENT', 'ENOTDIR')
      ? 'there is no such file'
      : hasCode(error, 'EISDIR')
        ? 'it is a folder'
        : messageOf(error);
    throw new Failure('template', `the template ${file} can't be read: ${why}`, { hint, cause: error });
  }
}
