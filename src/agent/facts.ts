import { readdirSync, readFileSync, statfsSync } from 'node:fs';
import { under, type AgentConfig } from './config.ts';
import type { GuestFacts } from './protocol.ts';

const kstats = '/proc/spl/kstat/zfs';

/** Reads the facts from /proc, without a process. @throws Error if one of them can't be read. */
export function readFacts(config: AgentConfig): GuestFacts {
  const read = (path: string): string => readFileSync(under(config, path), 'utf8').trim();
  const memory = read('/proc/meminfo');
  const kib = (name: string): number =>
    Number(new RegExp(`^${name}:\\s+(\\d+) kB`, 'm').exec(memory)?.[1] ?? 0);
  const root = statfsSync(under(config, '/'));
  return {
    hostname: read('/proc/sys/kernel/hostname'),
    machineId: read('/etc/machine-id'),
    time: Date.now(),
    uptime: Number(read('/proc/uptime').split(' ')[0]),
    load: read('/proc/loadavg').split(' ').slice(0, 3).map(Number),
    memory: { total: kib('MemTotal') * 1024, available: kib('MemAvailable') * 1024 },
    root: {
      total: root.blocks * root.bsize,
      used: (root.blocks - root.bfree) * root.bsize,
      free: root.bavail * root.bsize,
    },
    pools: poolNames(config).map((name) => ({ name, health: read(`${kstats}/${name}/state`) })),
  };
}

/** No pools where the module isn't loaded; each imported pool has a folder with its state. */
function poolNames(config: AgentConfig): string[] {
  try {
    return readdirSync(under(config, kstats), { withFileTypes: true })
      .filter((entry) => entry.isDirectory())
      .map((entry) => entry.name)
      .sort();
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return [];
    throw error;
  }
}
