import type { PoolSpec } from './spec.ts';
import { poolNamePattern, propertyValuePattern } from './values.ts';

/**
 * The settings that `provision/pool.sh` reads in the guest, as shell assignments; sizes in bytes. The same text goes
 * into the built-in image's machines and into the Lima YAML.
 */
export function renderPoolConf(pool: PoolSpec): string {
  const properties = Object.entries(pool.properties).map(([key, value]) => `${key}=${value}`);
  const unsafe = [pool.name, ...properties].find((text) => !isPlain(text));
  // Templates and specs are checked where they are read; a text that the shell would interpret must not get past.
  if (unsafe !== undefined) throw new RangeError(`not safe in a shell assignment: ${JSON.stringify(unsafe)}`);
  return [
    `POOL_NAME=${pool.name}`,
    `POOL_LAYOUT=${pool.layout}`,
    `POOL_FILE_COUNT=${pool.fileCount}`,
    `POOL_FILE_SIZE=${pool.fileSize}`,
    `POOL_ASHIFT=${pool.ashift}`,
    `POOL_AUTOTRIM=${pool.autotrim ? 'on' : 'off'}`,
    `POOL_PROPERTIES="${properties.join(' ')}"`,
    '',
  ].join('\n');
}

function isPlain(text: string): boolean {
  const [key, ...value] = text.split('=');
  if (value.length === 0) return poolNamePattern.test(text);
  return /^[a-z0-9][a-z0-9_.:-]*$/.test(key ?? '') && propertyValuePattern.test(value.join('='));
}
