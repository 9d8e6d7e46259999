declare module 'fs-native-extensions' {
  /** Takes a lock on the open file (OFD lock on Linux, flock on macOS); false if another holder has it. */
  export function tryLock(fd: number, options?: { shared?: boolean }): boolean;
}
