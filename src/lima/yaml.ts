import { Document, isMap, isScalar, type Pair, type Scalar, visit } from 'yaml';
import { exactBytes, formatBytes } from '../core/bytes.ts';
import { renderPoolConf } from '../template/pool-conf.ts';
import { worstCaseTotal, type Spec } from '../template/spec.ts';
import { imagesOf } from './images.ts';
import { probesOf } from './probes.ts';
import { readProvisionScripts, type ProvisionScript } from './provision.ts';

/** The first Lima that knows `mode: data`, and with it the oldest that can use the files. */
export const minimumLimaVersion = '1.1.0';

const configFolder = 'lima-configs';
const ourConfigs: ReadonlyMap<string, string> = new Map([
  ['zfs-test', 'zfs-test-minimal.yaml'],
  ['zfs-small', 'zfs-test-small.yaml'],
  ['kernel-build', 'zfs-kernel-build.yaml'],
  ['combined', 'zfs-combined.yaml'],
]);

/** The file that holds a template's Lima YAML: one in `lima-configs/` for our own, beside the user for theirs. */
export function limaFile(spec: Pick<Spec, 'template' | 'name'>): string {
  const ours = ourConfigs.get(spec.template);
  return ours === undefined ? `${spec.name}.lima.yaml` : `${configFolder}/${ours}`;
}

/** What the driver adds to the file that anybody can use with bare limactl. */
export interface DriverExtras {
  /** A line that tells this machine from any other one of its name. */
  readonly marker: string;
  /** An image on this host that is tried before the others: a path. */
  readonly image?: string;
}

/** The Lima YAML of a spec, with the scripts of `provision/`; see `renderLimaYaml`. */
export async function renderLima(spec: Spec, extras?: DriverExtras): Promise<string> {
  return renderLimaYaml(spec, await readProvisionScripts(spec), extras);
}

/**
 * The minimal Lima YAML of a spec: usable with bare limactl, complete in itself. The scripts are those that
 * `readProvisionScripts` gives for the same spec.
 * @throws Error if a text holds what Lima would take for a Go template: that is a bug of ours, not a user's mistake.
 */
export function renderLimaYaml(
  spec: Spec,
  scripts: readonly ProvisionScript[],
  extras?: DriverExtras,
): string {
  const content = {
    minimumLimaVersion,
    cpus: spec.cpus,
    memory: exactBytes(spec.memory),
    disk: exactBytes(spec.disk),
    images: imagesOf(spec, extras?.image),
    mounts: [],
    containerd: { system: false, user: false },
    plain: true,
    provision: [...(extras ? [{ mode: 'system', script: rootLogin }] : []), ...provisionOf(spec, scripts)],
    probes: probesOf(spec),
    message: message(spec),
  };
  refuseGoTemplates([content.provision, content.probes]);
  const document = new Document(content);
  for (const [key, text] of notes(spec)) comment(document, key, text);
  return `${extras ? `# ${extras.marker}\n` : header(spec)}${document.toString({ lineWidth: 0, blockQuote: 'literal' })}`;
}

/** zfsdev's commands are root's on every machine; Lima gives its key to a user of the host's name only. */
const rootLogin = `#!/bin/sh
set -eu
mkdir -p /root/.ssh
chmod 0700 /root/.ssh
cat /home/*/.ssh/authorized_keys >/root/.ssh/authorized_keys
chmod 0600 /root/.ssh/authorized_keys
`;

function provisionOf(spec: Spec, scripts: readonly ProvisionScript[]): object[] {
  const conf = spec.pool && {
    mode: 'data',
    path: '/etc/zfsdev/pool.conf',
    content: renderPoolConf(spec.pool),
    owner: 'root:root',
    permissions: '644',
  };
  return [...(conf ? [conf] : []), ...scripts.map(({ text }) => ({ mode: 'system', script: text }))];
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

function header(spec: Spec): string {
  const file = limaFile(spec);
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
    `  zfsdev render ${spec.template} >${file}`,
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
