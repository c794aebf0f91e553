import test from 'ava';
import type { EventFile } from '../../../runtime/core/file-table.js';
import { Client } from '../../../runtime/serve/client.js';
import type { ClientTask } from '../../../runtime/serve/client-task.js';
import type { ServedFile } from '../../../runtime/serve/served-file.js';

test('client: a descriptor that it has ready is used once, and by its number only', (t) => {
  const made: unknown[] = [];
  const spare = { becomeMade: (file: unknown) => made.push(file), unmake: () => made.pop() };
  const client = new Client(1, {} as ClientTask, Buffer.alloc(16));
  const file = {} as EventFile;
  t.is(client.installSpare(file), -1);
  client.spare = spare as unknown as ServedFile;
  // A number that no descriptor has, as a hostile client says.
  client.spareFd = -24;
  t.is(client.installSpare(file), -1);
  t.is(made.length, 0);
  client.spareFd = 7;
  t.is(client.installSpare(file), 7);
  t.is(client.installSpare(file), -1);
  t.is(made.length, 1);
  t.false(client.removeSpare(8));
  t.true(client.removeSpare(7));
  t.is(made.length, 0);
});
