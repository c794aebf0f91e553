/** Random messages on the real socket: each ends its own connection at most, and a client goes on as before. */
import { once } from 'node:events';
import { connect } from 'node:net';
import { setImmediate as turn } from 'node:timers/promises';
import test from 'ava';
import { PassiveProcess } from '../../../perf/fuzz/passive-process.js';
import { Random } from '../../../perf/stress/random.js';
import { createMachine } from '../../../runtime/machine.js';
import { serve } from '../../../runtime/serve/index.js';
import { wireVersion } from '../../../runtime/serve/preload-library.js';

const SEED = Number(process.env.SEED ?? Date.now() % 2 ** 32) >>> 0;
const MESSAGES = 400;
const HEADER = 56;
const [HELLO, PROOF, FILE, IOCTL, BARRIER] = [1, 2, 3, 5, 9];

function message(op: number, payload: Uint8Array, file = 0n, cmd = 0): Buffer {
  const bytes = Buffer.alloc(HEADER + payload.byteLength);
  bytes.writeUInt32LE(payload.byteLength, 0);
  bytes.writeUInt16LE(op, 4);
  bytes.writeBigUInt64LE(file, 8);
  bytes.writeUInt32LE(cmd, 32);
  bytes.set(payload, HEADER);
  return bytes;
}

function hello(pid: number, va: bigint): Buffer {
  const payload = Buffer.alloc(24);
  payload.writeUInt32LE(0x6466_6d69, 0);
  payload.writeUInt32LE(wireVersion(), 4);
  payload.writeUInt32LE(pid, 8);
  payload.writeBigUInt64LE(va, 16);
  return message(HELLO, payload);
}

test(`wire: ${MESSAGES} random messages hurt nobody else (seed ${SEED})`, async (t) => {
  const random = new Random(SEED);
  const machine = createMachine({
    memory: '16MiB',
    iommus: [{ name: 'smmu0', model: 'smmuv3' }],
    devices: [],
  });
  const logged: string[] = [];
  const served = await serve(machine, { log: (line) => logged.push(line) });
  const process = new PassiveProcess();
  const good = connect(served.socket);
  t.teardown(async () => {
    good.destroy();
    process.end();
    await served.close();
    machine.close();
  });
  const ask = async (bytes: Buffer): Promise<Buffer> => {
    good.write(bytes);
    const [answer] = (await once(good, 'data')) as [Buffer];
    return answer;
  };
  const challenge = await ask(hello(process.pid, process.va));
  process.write(0, challenge.subarray(16, 48));
  const welcome = await ask(message(PROOF, new Uint8Array(0)));
  t.is(welcome.readInt32LE(4), 0);
  const secret = welcome.subarray(16, 32);
  const file = connect(served.socket);
  t.teardown(() => void file.destroy());
  file.write(message(FILE, secret, 77n, 1));
  await once(file, 'data');

  const ioasAlloc = Buffer.from(Uint32Array.of(12, 0, 0).buffer);
  const seeds = [
    hello(process.pid, process.va),
    message(PROOF, new Uint8Array(0)),
    message(FILE, Buffer.alloc(16), 99n, 1),
    message(IOCTL, ioasAlloc, 77n, 0x3b81),
    message(BARRIER, new Uint8Array(0)),
  ];
  for (let i = 0; i < MESSAGES; i++) {
    const bytes = Buffer.from(seeds[random.below(seeds.length)]!);
    for (let n = random.below(6); n > 0; n--) bytes[random.below(bytes.byteLength)] = random.next();
    const bad = connect(served.socket);
    bad.on('error', () => undefined);
    bad.write(bytes.subarray(0, random.below(bytes.byteLength + 1)));
    if (random.chance(50)) await turn();
    if (random.chance(50)) bad.write(bytes);
    // Half of them say no more; the others hang up.
    if (random.chance(50)) bad.end();
    else setTimeout(() => bad.destroy(), 5);
    if (i % 50 === 49) {
      const answer = await ask(message(IOCTL, ioasAlloc, 77n, 0x3b81));
      t.is(answer.readInt32LE(4), 0, `an IOAS after ${i + 1} messages`);
    }
  }
  t.deepEqual(
    logged.filter((line) => line.includes('made the server fail')),
    [],
  );
  t.is(served.counts.clients, 1);
  t.is(served.counts.files, 1);
});
