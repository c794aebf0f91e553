/** One measurement in a process of its own: the task as JSON on stdin's first line, its result as JSON on stdout. */
import { createInterface } from 'node:readline';
import { measurePoint, type PointTask } from './point.js';

const lines = createInterface({ input: process.stdin });
lines.once('line', (line) => {
  measurePoint(JSON.parse(line) as PointTask).then(
    (repeat) => process.stdout.write(`${JSON.stringify(repeat)}\n`, () => process.exit(0)),
    (error: Error) => process.stderr.write(`${error.message}\n`, () => process.exit(1)),
  );
});
// Whoever started this one is gone: so is the reason to go on.
lines.once('close', () => process.exit(1));
