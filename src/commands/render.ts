import { limaVersionOption } from '../lima/version.ts';
import { renderLima } from '../lima/yaml.ts';
import { resolveSpec } from '../template/resolve.ts';
import type { Session } from './session.ts';
import { resolveFlags, type UpCommandOptions } from './up.ts';

export interface RenderCommandOptions extends UpCommandOptions {
  readonly limaVersion?: string;
}

/** `zfsdev render`: the Lima YAML of a template, for every supported Lima or for one version of it. */
export async function render(
  session: Session,
  template: string,
  options: RenderCommandOptions,
): Promise<void> {
  const version = options.limaVersion;
  const limaVersion = version === undefined ? undefined : limaVersionOption(version);
  const spec = await resolveSpec(template, resolveFlags(options));
  session.write(await renderLima(spec, { limaVersion }));
}
