/** What a schedule hook is shown of blocks, which are copied plainly. */
import test from 'ava';
import { OP_LOAD, OP_STORE, type ScheduleHook, setScheduleHook, Words } from '../../../hw/sync/words.js';

/** Keeps the stores it is told to, and writes down what it is shown. */
class Keeper implements ScheduleHook {
  readonly seen: string[] = [];
  readonly kept = new Map<number, number>();
  keeps = false;

  point(op: number, offset: number): void {
    this.seen.push(`${op} ${offset}`);
  }
  storing(offset: number, _bytes: 4 | 8, low: number): boolean {
    if (this.keeps) this.kept.set(offset, low);
    return this.keeps;
  }
  forward32(offset: number): number | undefined {
    return this.kept.get(offset);
  }
  forward64(): undefined {
    return undefined;
  }
  wait(): null {
    return null;
  }
  notify(): null {
    return null;
  }
  dmaWmb(): void {
    this.seen.push('shown');
    this.kept.clear();
  }
}

test.serial('words: a block is one point, and its words are the hook’s to keep and to give back', (t) => {
  const words = new Words(new SharedArrayBuffer(256));
  const hook = new Keeper();
  setScheduleHook(hook);
  t.teardown(() => setScheduleHook(null));
  words.writeUnsigned(16, Uint32Array.of(1, 0xffff_ffff), 0, 2);
  hook.keeps = true;
  words.writeUnsigned(20, Uint32Array.of(7), 0, 1);
  const into = new Uint32Array(3);
  words.readUnsigned(16, into, 1, 2);
  t.deepEqual([...into], [0, 1, 7], 'its own store, though it does not show');
  t.deepEqual(hook.seen, [`${OP_STORE} 16`, `${OP_STORE} 20`, `${OP_LOAD} 16`]);
  hook.kept.clear();
  words.readUnsigned(16, into, 0, 2);
  t.deepEqual([...into], [1, 0xffff_ffff, 7]);
});

test.serial('words: bytes that are copied in memory come after what is kept', (t) => {
  const words = new Words(new SharedArrayBuffer(256));
  words.bytes(OP_STORE, 32);
  const hook = new Keeper();
  setScheduleHook(hook);
  t.teardown(() => setScheduleHook(null));
  words.bytes(OP_LOAD, 32);
  words.bytes(OP_STORE, 36);
  t.deepEqual(hook.seen, [`${OP_LOAD} 32`, 'shown', `${OP_STORE} 36`, 'shown']);
});
