import type { Adoption, Awakening, ExecRequest, Request } from './protocol.ts';

type Fields = Readonly<Record<string, unknown>>;

/** Reads a request; by hand, because a validation library would double the agent's start. @throws Error in words. */
export function parseRequest(payload: Buffer): Request {
  const value: unknown = JSON.parse(payload.toString('utf8'));
  if (!isFields(value)) throw new Error('a request is an object');
  switch (value['kind']) {
    case 'exec':
      return parseExec(value);
    case 'adopt':
      return { kind: 'adopt', ...parseAdoption(value) };
    case 'awaken':
      return { kind: 'awaken', ...parseAwakening(value) };
    case 'connect': {
      const path = value['path'];
      if (!isPlain(path) || !path.startsWith('/')) throw new Error('path is that of a socket');
      return { kind: 'connect', path };
    }
    case 'facts':
      return { kind: 'facts' };
    default:
      throw new Error(`this agent knows no request "${String(value['kind'])}"`);
  }
}

function parseExec({ argv, env, cwd }: Fields): ExecRequest {
  if (!Array.isArray(argv) || argv.length === 0 || !argv.every(isPlain) || argv[0] === '') {
    throw new Error('argv is a list of words without NUL bytes, the program first');
  }
  if (env !== undefined && !(isFields(env) && Object.entries(env).flat().every(isPlain))) {
    throw new Error('env maps names to words without NUL bytes');
  }
  if (cwd !== undefined && !isPlain(cwd)) throw new Error('cwd is a path');
  return {
    kind: 'exec',
    argv: argv,
    ...(env === undefined ? {} : { env: env as Record<string, string> }),
    ...(cwd === undefined ? {} : { cwd }),
  };
}

const forms: Readonly<Record<Exclude<keyof Adoption, 'time'>, RegExp>> = {
  hostname: /^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/,
  machineId: /^[0-9a-f]{32}$/,
  hostid: /^[0-9a-f]{8}$/,
  mac: /^([0-9a-f]{2}:){5}[0-9a-f]{2}$/,
  sshHostKey: /^-----BEGIN [\s\S]+-----\s*$/,
  sshHostPublicKey: /^\S+ \S+[^\n]*\n?$/,
  agentKey: /^[0-9a-f]{64}$/,
  entropy: /^([0-9a-f]{2}){16,512}$/,
};

function textIn(fields: Fields, name: keyof typeof forms): string {
  const value = fields[name];
  if (typeof value !== 'string' || !forms[name].test(value))
    throw new Error(`${name} has not the form it should`);
  return value;
}

function parseAwakening(fields: Fields): Awakening {
  const time = fields['time'];
  if (typeof time !== 'number' || !(time > 0)) throw new Error('time is milliseconds since 1970');
  return { time, entropy: textIn(fields, 'entropy') };
}

function parseAdoption(fields: Fields): Adoption {
  const text = (name: keyof typeof forms): string => textIn(fields, name);
  return {
    hostname: text('hostname'),
    machineId: text('machineId'),
    hostid: text('hostid'),
    mac: text('mac'),
    sshHostKey: text('sshHostKey'),
    sshHostPublicKey: text('sshHostPublicKey'),
    agentKey: text('agentKey'),
    ...parseAwakening(fields),
  };
}

function isFields(value: unknown): value is Fields {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function isPlain(value: unknown): value is string {
  return typeof value === 'string' && !value.includes('\0');
}
