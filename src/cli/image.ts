import type { Command } from 'commander';
import { dryRun, json, mirror, overcommit, type Options, type Perform } from './options.ts';

/** Commands for base images. */
export function declareImage(program: Command, perform: Perform): void {
  const image = program
    .command('image')
    .description('build, fetch and keep the base images of the built-in driver');
  image
    .command('build')
    .description('build an image, unless it is there')
    .option('--flavour <flavour>', 'zfs, base (without ZFS), or cloud (boots by itself, for Lima)', 'zfs')
    .option('--tools', 'with the tools of a kernel build, as the templates kernel-build and combined want')
    .option('--suite <suite>', 'Debian release: trixie or sid', 'trixie')
    .option('--rebuild', 'build it again although it is there')
    .addOption(mirror())
    .addOption(dryRun())
    .addOption(json())
    .action((_: unknown, self: Command) => {
      const options = self.optsWithGlobals<Options>();
      return perform(options, 'steps', async (session) =>
        (await import('../commands/image.ts')).build(session, options),
      );
    });
  image
    .command('pull')
    .argument('<location>', 'an http(s) address, or a file')
    .description('fetch a cloud image, verify it and keep it; goes on with a download that was cut off')
    .option('--digest <digest>', 'sha256: or sha512: and the digits; needed for an address')
    .addOption(overcommit())
    .addOption(dryRun())
    .addOption(json())
    .action((location: string, _: unknown, self: Command) => {
      const options = self.optsWithGlobals<Options>();
      return perform(options, 'steps', async (session) =>
        (await import('../commands/image.ts')).pull(session, location, options),
      );
    });
  image
    .command('list')
    .alias('ls')
    .description('list all images')
    .addOption(json())
    .action((_: unknown, self: Command) =>
      perform(self.optsWithGlobals<Options>(), 'steps', async (session) =>
        (await import('../commands/image.ts')).list(session),
      ),
    );
  image
    .command('inspect')
    .argument('<digest>', 'the digest or its beginning')
    .description('tell all about one image')
    .addOption(json())
    .action((digest: string, _: unknown, self: Command) =>
      perform(self.optsWithGlobals<Options>(), 'steps', async (session) =>
        (await import('../commands/image.ts')).inspect(session, digest),
      ),
    );
  image
    .command('remove')
    .alias('rm')
    .argument('<digest>', 'the digest or its beginning')
    .description('remove an image that no instance stands on')
    .addOption(dryRun())
    .addOption(json())
    .action((digest: string, _: unknown, self: Command) =>
      perform(self.optsWithGlobals<Options>(), 'steps', async (session) =>
        (await import('../commands/image.ts')).remove(session, digest),
      ),
    );
  image
    .command('prune')
    .description('remove all images that no instance stands on, and what only they needed')
    .addOption(dryRun())
    .addOption(json())
    .action((_: unknown, self: Command) => {
      const options = self.optsWithGlobals<Options>();
      return perform(options, 'steps', async (session) =>
        (await import('../commands/image.ts')).prune(session),
      );
    });
}
