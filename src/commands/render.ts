import { renderLima } from '../lima/yaml.ts';
import { resolveSpec } from '../template/resolve.ts';
import type { Session } from './session.ts';
import { resolveFlags, type UpCommandOptions } from './up.ts';

/** `zfsdev render`: the Lima YAML of a template. */
export async function render(session: Session, template: string, options: UpCommandOptions): Promise<void> {
  session.write(await renderLima(await resolveSpec(template, resolveFlags(options))));
}
