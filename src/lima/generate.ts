import { listTemplates } from '../template/load.ts';
import { resolveSpec } from '../template/resolve.ts';
import { limaFile, renderLima } from './yaml.ts';

/** The Lima YAML of every template of ours, by its file below the repository's root. */
export async function generateLimaConfigs(): Promise<Map<string, string>> {
  const files = new Map<string, string>();
  for (const template of await listTemplates()) {
    const spec = await resolveSpec(template);
    files.set(limaFile(spec), await renderLima(spec));
  }
  return files;
}
