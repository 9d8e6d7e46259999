/** Which package carries a program zfsdev calls: Debian and Ubuntu, and Homebrew where it has one. */
export const packageOf: Readonly<Record<string, { apt?: string; brew?: string }>> = {
  'qemu-system-x86_64': { apt: 'qemu-system-x86', brew: 'qemu' },
  'qemu-system-aarch64': { apt: 'qemu-system-arm', brew: 'qemu' },
  'qemu-img': { apt: 'qemu-utils', brew: 'qemu' },
  'qemu-nbd': { apt: 'qemu-utils', brew: 'qemu' },
  ssh: { apt: 'openssh-client' },
  scp: { apt: 'openssh-client' },
  'ssh-keygen': { apt: 'openssh-client' },
  mmdebstrap: { apt: 'mmdebstrap' },
  mke2fs: { apt: 'e2fsprogs', brew: 'e2fsprogs' },
  zstd: { apt: 'zstd', brew: 'zstd' },
  unshare: { apt: 'util-linux' },
  newuidmap: { apt: 'uidmap' },
  virtiofsd: { apt: 'virtiofsd' },
  limactl: { brew: 'lima' },
  // Firmware of guests, which is no program; Homebrew's QEMU brings it along.
  'uefi-x86_64': { apt: 'ovmf', brew: 'qemu' },
  'uefi-aarch64': { apt: 'qemu-efi-aarch64', brew: 'qemu' },
};

/** The command that installs a missing program on this platform, or undefined if no package is known. */
export function installCommand(
  program: string,
  platform: NodeJS.Platform = process.platform,
): string | undefined {
  const known = packageOf[program];
  if (platform === 'darwin') return known?.brew && `brew install ${known.brew}`;
  return known?.apt && `sudo apt-get install --no-install-recommends ${known.apt}`;
}
