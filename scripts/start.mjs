// `npm start`: the main job with its defaults, both built-in machines one after the other in one process.
// Options given behind `npm start --` are the command's own and apply to each machine.
import { runCommand } from '../dist/scripts/process.js';

await runCommand(['stress', ...process.argv.slice(2)]);
