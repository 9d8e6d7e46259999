import { createServer, type Socket } from 'node:net';
import { createInterface } from 'node:readline';
import { greeting, type Request } from './qmp-peer.ts';

export type Properties = Readonly<Record<string, unknown>>;

/** What a guest does when it is asked to let go of a device. */
export type Guest = 'lets-go' | 'refuses' | 'never' | 'had-gone';

export interface FakeQemu {
  /** Ids of its devices, with their properties. */
  readonly devices: Map<string, Properties>;
  /** Its block nodes by name, with their properties. */
  readonly nodes: Map<string, Properties>;
  /** Virtual sizes of nodes in bytes. */
  readonly sizes: Map<string, number>;
  readonly objects: Map<string, Properties>;
  /** Names of all commands that changed something or tried to, in their order. */
  readonly changes: string[];
  guest: Guest;
  status: string;
  /** The next command of this name is refused in these words; `hang up before` and `hang up after` it end the conversation instead. */
  fault: { readonly command: string; readonly words: string } | undefined;
  /** Fails if a command came that this QEMU does not know. */
  verify(): void;
  close(): Promise<void>;
}

/** A command that is refused in these words. */
export class Refused extends Error {
  readonly kind: string;
  constructor(words: string, kind = 'GenericError') {
    super(words);
    this.kind = kind;
  }
}

const ports = ['port1', 'port2', 'port3', 'port4'];

/** Carries out what is not about devices, one command at a time; undefined for a command that it does not know either. */
export type More = (execute: string, args: Properties) => Promise<unknown>;

/** Answers on a Unix socket as a QEMU of four free PCI ports does, as far as disks go, in the words of 7.2. */
export async function fakeQemu(path: string, more?: More): Promise<FakeQemu> {
  const unexpected: string[] = [];
  const sockets = new Set<Socket>();
  const qemu: FakeQemu = {
    devices: new Map([
      ...ports.map((id): [string, Properties] => [id, { driver: 'pcie-root-port' }]),
      ['blk0', { driver: 'virtio-blk-pci', drive: 'disk0' }],
    ]),
    nodes: new Map([
      ['disk0-file', { driver: 'file' }],
      ['disk0', { driver: 'qcow2', file: 'disk0-file' }],
    ]),
    sizes: new Map(),
    objects: new Map(),
    changes: [],
    guest: 'lets-go',
    status: 'running',
    fault: undefined,
    verify: () => {
      if (unexpected.length > 0) throw new Error(`unexpected commands:\n${unexpected.join('\n')}`);
    },
    close: () =>
      new Promise((resolve) => {
        for (const socket of sockets) socket.destroy();
        server.close(() => resolve());
      }),
  };
  const tell = (event: string, data: Properties): void => {
    for (const socket of sockets) socket.write(`${JSON.stringify({ event, data })}\r\n`);
  };
  const server = createServer((socket) => {
    sockets.add(socket);
    socket.on('error', () => undefined);
    socket.on('close', () => sockets.delete(socket));
    socket.write(`${greeting}\r\n`);
    let turn = Promise.resolve();
    createInterface({ input: socket })
      .on('error', () => undefined)
      .on('line', (line) => void (turn = turn.then(() => answer(line, socket))));
  });
  const answer = async (line: string, socket: Socket): Promise<void> => {
    const request = JSON.parse(line) as Request;
    const { id, execute, arguments: args = {} } = request;
    const fault = qemu.fault?.command === execute ? qemu.fault.words : undefined;
    if (fault !== undefined) qemu.fault = undefined;
    if (fault === 'hang up before') return void socket.destroy();
    try {
      if (fault !== undefined && fault !== 'hang up after') throw new Refused(fault);
      const value = (await more?.(execute, args)) ?? carryOut(qemu, execute, args, tell);
      if (value === undefined) {
        unexpected.push(line);
        throw new Refused(`the fake does not know ${line}`);
      }
      if (fault === 'hang up after') return void socket.destroy();
      socket.write(`${JSON.stringify({ return: value, id })}\r\n`);
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      socket.write(`${JSON.stringify({ id, error: { class: error.kind, desc: error.message } })}\r\n`);
    }
  };
  await new Promise<void>((resolve) => server.listen(path, resolve));
  return qemu;
}

type Tell = (event: string, data: Properties) => void;

/** Undefined for a command that it does not know. */
function carryOut(qemu: FakeQemu, execute: string, args: Properties, tell: Tell): unknown {
  const text = (key: string): string => String(args[key]);
  if (/^(block|device|object)/.test(execute)) qemu.changes.push(execute);
  switch (execute) {
    case 'qmp_capabilities':
      return {};
    case 'query-status':
      return { status: qemu.status, running: qemu.status === 'running' };
    case 'qom-list': {
      const children = text('path') === '/objects' ? qemu.objects : qemu.devices;
      const list = [...children.keys()].map((name) => ({ name, type: 'child<any>' }));
      return [{ name: 'type', type: 'string' }, ...list];
    }
    case 'qom-get':
      return propertyOf(qemu, text('path').replace('/machine/peripheral/', ''), text('property'));
    case 'query-named-block-nodes':
      return [...qemu.nodes.keys()].map((name) => ({
        'node-name': name,
        image: { 'virtual-size': qemu.sizes.get(name) ?? 0 },
      }));
    case 'object-add':
      qemu.objects.set(text('id'), args);
      return {};
    case 'object-del':
      qemu.objects.delete(text('id'));
      return {};
    case 'blockdev-add':
      return addNode(qemu, args);
    case 'blockdev-del':
      return dropNode(qemu, text('node-name'));
    case 'block_resize':
      qemu.sizes.set(text('node-name'), Number(args['size']));
      return {};
    case 'device_add':
      return addDevice(qemu, args);
    case 'device_del':
      return dropDevice(qemu, text('id'), tell);
    default:
      return undefined;
  }
}

function propertyOf(qemu: FakeQemu, id: string, property: string): unknown {
  const device = qemu.devices.get(id);
  if (!device) throw new Refused(`Device '${id}' not found`, 'DeviceNotFound');
  if (property !== 'parent_bus') return device[property];
  const bus = busOf(device);
  const [owner = ''] = bus.split('.');
  return bus === 'pcie.0' ? '/machine/q35/pcie.0' : `/machine/peripheral/${owner}/${bus}`;
}

/** One that names none is beside the board's own. */
function busOf({ bus }: Properties): string {
  return typeof bus === 'string' ? bus : 'pcie.0';
}

function addNode(qemu: FakeQemu, args: Properties): object {
  const name = String(args['node-name']);
  if (qemu.nodes.has(name)) throw new Refused(`Duplicate nodes with node-name='${name}'`);
  qemu.nodes.set(name, args);
  return {};
}

function isUsed(qemu: FakeQemu, node: string): boolean {
  const byNode = [...qemu.nodes.values()].some((each) => each['file'] === node);
  return byNode || [...qemu.devices.values()].some((each) => each['drive'] === node);
}

function dropNode(qemu: FakeQemu, name: string): object {
  if (!qemu.nodes.has(name)) throw new Refused(`Failed to find node with node-name='${name}'`);
  if (isUsed(qemu, name)) throw new Refused(`Node ${name} is in use`);
  qemu.nodes.delete(name);
  return {};
}

function addDevice(qemu: FakeQemu, args: Properties): object {
  const [id, bus] = [String(args['id']), busOf(args)];
  if (qemu.devices.has(id)) throw new Refused(`Duplicate device ID '${id}'`);
  if (bus === 'pcie.0') throw new Refused("Bus 'pcie.0' does not support hotplugging");
  if (!ports.includes(bus) && !qemu.devices.has(bus.split('.')[0] ?? ''))
    throw new Refused(`Bus '${bus}' not found`);
  qemu.devices.set(id, args);
  return {};
}

function dropDevice(qemu: FakeQemu, id: string, tell: Tell): object {
  const device = qemu.devices.get(id);
  if (!device || qemu.guest === 'had-gone') {
    qemu.devices.delete(id);
    throw new Refused(`Device '${id}' not found`, 'DeviceNotFound');
  }
  if (device['bus'] === undefined) throw new Refused("Bus 'pcie.0' does not support hotplugging");
  if (device['leaving'] === true && qemu.guest === 'never')
    throw new Refused(`Device ${id} is already in the process of unplug`);
  qemu.devices.set(id, { ...device, leaving: true });
  const path = `/machine/peripheral/${id}`;
  if (qemu.guest === 'refuses') tell('DEVICE_UNPLUG_GUEST_ERROR', { device: id, path });
  if (qemu.guest === 'lets-go') {
    qemu.devices.delete(id);
    // The device's own part goes first, and has no id.
    tell('DEVICE_DELETED', { path: `${path}/virtio-backend` });
    tell('DEVICE_DELETED', { device: id, path });
  }
  return {};
}
