import { Document, isMap, isScalar, type Pair, type Scalar, visit } from 'yaml';
import { exactBytes, formatBytes } from '../core/bytes.ts';
import { renderPoolConf } from '../template/pool-conf.ts';
import { worstCaseTotal, type Spec } from '../template/spec.ts';
import { imagesOf } from './images.ts';
import { probesOf } from './probes.ts';
import { readProvisionScripts, type ProvisionScript } from './provision.ts';
import { refuseStorage } from './storage.ts';
import { limaHas, oldestLima, type LimaVersion } from './version.ts';

/** The first Lima that writes files into the guest itself, by `mode: data`. */
const dataSince = '1.1.0';

const configFolder = 'lima-configs';
const ourConfigs: ReadonlyMap<string, string> = new Map([
  ['zfs-test', 'zfs-test-minimal.yaml'],
  ['zfs-small', 'zfs-test-small.yaml'],
  ['kernel-build', 'zfs-kernel-build.yaml'],
  ['combined', 'zfs-combined.yaml'],
]);

/**
 * The file that holds a template's Lima YAML: one in `lima-configs/` for our own, fit for every Lima; beside the user for
 * theirs, and for what is made for one version of Lima.
 */
export function limaFile(spec: Pick<Spec, 'template' | 'name'>, limaVersion?: LimaVersion): string {
  const ours = limaVersion ? undefined : ourConfigs.get(spec.template);
  return ours === undefined ? `${spec.name}.lima.yaml` : `${configFolder}/${ours}`;
}

/** What the driver adds to the file that anybody can use with bare limactl. */
export interface DriverExtras {
  /** A line that tells this machine from any other one of its name. */
  readonly marker: string;
  /** An image on this host that is tried before the others: a path. */
  readonly image?: string;
}

export interface RenderOptions {
  /** The Lima that is to read it; without one, every supported version can. */
  readonly limaVersion?: LimaVersion | undefined;
  readonly extras?: DriverExtras;
}

/** The Lima YAML of a spec, with the scripts of `provision/`; see `renderLimaYaml`. */
export async function renderLima(spec: Spec, options?: RenderOptions): Promise<string> {
  refuseStorage(spec);
  return renderLimaYaml(spec, await readProvisionScripts(spec), options);
}

/**
 * The minimal Lima YAML of a spec: usable with bare limactl, complete in itself. The scripts are those that
 * `readProvisionScripts` gives for the same spec.
 * @throws Error if a text holds what Lima would take for a Go template: that is a bug of ours, not a user's mistake.
 */
export function renderLimaYaml(
  spec: Spec,
  scripts: readonly ProvisionScript[],
  { limaVersion, extras }: RenderOptions = {},
): string {
  const hasData = limaVersion !== undefined && limaHas(limaVersion, dataSince);
  const settings = spec.pool && poolSettings(renderPoolConf(spec.pool), hasData);
  const content = {
    minimumLimaVersion: hasData && settings ? dataSince : oldestLima,
    cpus: spec.cpus,
    memory: exactBytes(spec.memory),
    disk: exactBytes(spec.disk),
    images: imagesOf(spec, extras?.image),
    mounts: [],
    containerd: { system: false, user: false },
    plain: true,
    // The settings come before the script that reads them.
    provision: [
      ...(extras ? [{ mode: 'system', script: rootLogin }] : []),
      ...(settings ? [settings] : []),
      ...scripts.map(({ text }) => ({ mode: 'system', script: text })),
    ],
    probes: probesOf(spec),
    message: message(spec),
  };
  refuseGoTemplates([content.provision, content.probes]);
  const document = new Document(content);
  for (const [key, text] of notes(spec)) comment(document, key, text);
  return `${extras ? `# ${extras.marker}\n` : header(spec, limaVersion)}${document.toString({ lineWidth: 0, blockQuote: 'literal' })}`;
}

/** zfsdev's commands are root's on every machine; Lima gives its key to a user of the host's name only. */
const rootLogin = `#!/bin/sh
set -eu
mkdir -p /root/.ssh
chmod 0700 /root/.ssh
cat /home/*/.ssh/authorized_keys >/root/.ssh/authorized_keys
chmod 0600 /root/.ssh/authorized_keys
`;

/** An entry of `provision` that puts the pool's settings where `pool.sh` looks for them, at each boot anew. */
function poolSettings(conf: string, hasData: boolean): object {
  const path = '/etc/zfsdev/pool.conf';
  if (hasData) return { mode: 'data', path, content: conf, owner: 'root:root', permissions: '644' };
  const script = `#!/bin/sh\nset -eu\nmkdir -p /etc/zfsdev\ncat >${path} <<'EOF'\n${conf}EOF\n`;
  return { mode: 'system', script };
}

/** Lima shows it after the start, and replaces `{{.Name}}` by the name that the user gave. */
function message(spec: Spec): string {
  const shell = 'limactl shell {{.Name}}';
  const lines = spec.pool
    ? [
        `The pool ${spec.pool.name} is ONLINE. Look at it, or open a shell:`,
        `  ${shell} sudo zpool status ${spec.pool.name}`,
        `  ${shell}`,
      ]
    : ['The machine is ready. Open a shell in it:', `  ${shell}`];
  return [...lines, 'Delete it to get its disk space back:', '  limactl delete --force {{.Name}}', ''].join(
    '\n',
  );
}

/** What a reader of the file wants to know of a key. */
function notes(spec: Spec): [key: string, text: string][] {
  const total = formatBytes(worstCaseTotal(spec.worstCase));
  return [
    ['cpus', 'vmType is left to Lima: vz on macOS, QEMU on Linux.'],
    ['disk', `Virtual size; in the worst case ${total} of it are used.`],
    [
      'images',
      'Tried in order: pinned first, then the latest, as Ubuntu removes dated images after some months.',
    ],
    [
      'mounts',
      'Nothing of the host is seen in the guest; plain keeps a default.yaml of yours from adding mounts.',
    ],
    ['provision', 'Run at every boot, so every step leaves alone what is there already.'],
  ];
}

function header(spec: Spec, limaVersion: LimaVersion | undefined): string {
  const file = limaFile(spec, limaVersion);
  const flag = limaVersion ? ` --lima-version ${limaVersion.numbers}` : '';
  const check = spec.pool
    ? `limactl shell ${spec.name} sudo zpool status ${spec.pool.name}`
    : `limactl shell ${spec.name}`;
  return [
    `${spec.description}.`,
    '',
    'Make and use it with limactl alone:',
    '',
    `  limactl create --name=${spec.name} ${file}`,
    `  limactl start ${spec.name}`,
    `  ${check}`,
    `  limactl delete --force ${spec.name}`,
    '',
    'Generated, so change the template and not this file:',
    '',
    `  zfsdev render ${spec.template}${flag} >${file}`,
  ]
    .map((line) => `${`# ${line}`.trimEnd()}\n`)
    .join('');
}

function comment(document: Document, key: string, text: string): void {
  if (!isMap(document.contents)) return;
  const pair = document.contents.items.find(
    (item): item is Pair<Scalar> => isScalar(item.key) && item.key.value === key,
  );
  if (pair) pair.key.commentBefore = ` ${text}`;
}

/** Lima expands `{{` in scripts, contents and paths, or leaves it in with a warning: neither is what we wrote. */
function refuseGoTemplates(texts: object): void {
  visit(new Document(texts), {
    Scalar: (_, { value }) => {
      if (typeof value !== 'string' || !value.includes('{{')) return;
      const line = value.split('\n').find((one) => one.includes('{{')) ?? '';
      throw new Error(`Lima would take this for a Go template: ${line.trim()}`);
    },
  });
}
