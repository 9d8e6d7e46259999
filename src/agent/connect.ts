import { connect } from 'node:net';
import type { Link } from './link.ts';
import { FrameType } from './protocol.ts';

/**
 * Leads a connection to a socket of this machine. After the answer it carries bytes and no frames: the host's come first, so
 * that none of the other side's are taken for a frame.
 */
export function leadTo(link: Link, path: string, refuse: (error: Error) => void): void {
  const target = connect(path);
  const failed = (error: Error): void => refuse(new Error(`nothing answers at ${path}: ${error.message}`));
  target.once('error', failed);
  target.once('connect', () => {
    target.off('error', failed);
    link.sendJson(FrameType.answer, {});
    const socket = link.release();
    // Either end takes the other along.
    target.on('error', () => socket.destroy());
    target.on('close', () => socket.destroy());
    socket.on('close', () => target.destroy());
    socket.once('data', (first: Buffer) => {
      target.write(first);
      socket.pipe(target);
      target.pipe(socket);
    });
    socket.resume();
  });
}
