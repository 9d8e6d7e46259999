/** A name with a protocol is no path, as QEMU has it: a colon before any slash. */
export const protocol = /^[^/]+:/;

/** A key and its text anywhere in the options behind `json:`; QEMU takes either kind of quotation marks there. */
const pair = /(["'])((?:\\.|(?!\1).)*)\1\s*:\s*(["'])((?:\\.|(?!\3).)*)\3/gs;

/**
 * The files that a qcow2's name for its backing file leads to, as they are written; none for what is no file of this host
 * (`nbd://...`). There may be several where the name has the options of a whole chain (`json:{...}`): nearest first.
 */
export function filesBehind(name: string): readonly string[] {
  if (name.startsWith('json:')) return filesAmong(name.slice('json:'.length));
  const path = withoutProtocol(name);
  return protocol.test(path) ? [] : [path];
}

/** A name without the protocol of files; QEMU takes all behind it for the path. */
function withoutProtocol(name: string): string {
  return name.replace(/^file:/, '');
}

/** QEMU writes them as `{"file": {"filename": "/a"}}` or as `{"file.filename": "/a"}`; `backing` in them is the next of the chain. */
function filesAmong(options: string): string[] {
  const near: string[] = [];
  const far: string[] = [];
  try {
    gather(JSON.parse(options), false, near, far);
  } catch {
    // Not the JSON of the standard; what QEMU finds in it is found all the same, in the order of the text.
    for (const [, , key = '', , value = ''] of options.matchAll(pair))
      if (isFilename(key)) near.push(value.replace(/\\(.)/g, '$1'));
  }
  return [...near, ...far].flatMap(filesBehind);
}

function gather(options: unknown, behind: boolean, near: string[], far: string[]): void {
  if (typeof options !== 'object' || options === null) return;
  for (const [key, value] of Object.entries(options)) {
    const beyond = behind || /(^|\.)backing(\.|$)/.test(key);
    if (typeof value === 'string' && isFilename(key)) (beyond ? far : near).push(value);
    else gather(value, beyond, near, far);
  }
}

function isFilename(key: string): boolean {
  return /(^|\.)filename$/.test(key);
}
