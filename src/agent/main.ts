// The guest's agent: runs commands and adopts forked machines for the host. Bundled on its own; Node is all it needs.
import { parseArguments } from './config.ts';
import { startAgent } from './server.ts';

const server = startAgent(parseArguments(process.argv.slice(2)));
server.once('listening', () => {
  const address = server.address();
  if (address !== null && typeof address === 'object') console.log(`listening on port ${address.port}`);
});
server.on('error', (error) => {
  console.error(error.message);
  process.exitCode = 1;
  server.close();
});
