import test from 'ava';
import { UnitLayout } from '../../hw/iotlb/unit-layout.js';
import { MachineMemory } from '../../hw/memory/machine-memory.js';
import { runUnit } from '../../workers/unit-loop.js';

function unitMemory() {
  const memory = MachineMemory.create({ ramBytes: 2 * 1024 * 1024, controlBytes: 1024 * 1024 });
  return { memory, unit: memory.allocRegion(UnitLayout, 'unit:0').base };
}

/** A clock that moves by 1 us each time it is read. */
const tickingClock = () => {
  let now = 0;
  return { nowNs: () => (now += 1000) };
};

test('unit loop: steps until stopped, then drains what is left', (t) => {
  const { memory, unit } = unitMemory();
  let work = 10;
  const busy = runUnit({
    model: { step: () => work-- > 0, hasWork: () => work > 0 },
    words: memory.words,
    clock: tickingClock(),
    unit,
    stopping: () => work <= 4,
  });
  t.is(busy, 10);
});

test('unit loop: a model that always finds work ends within the drain time', (t) => {
  const { memory, unit } = unitMemory();
  const busy = runUnit({
    model: { step: () => true, hasWork: () => true },
    words: memory.words,
    clock: tickingClock(),
    unit,
    stopping: () => true,
  });
  t.true(busy > 0 && busy <= 500_000);
});

test('unit loop: parks only while announced, and not when work came up meanwhile', (t) => {
  const { memory, unit } = unitMemory();
  const { words } = memory;
  const parked = unit + UnitLayout.at.doorbellParked;
  let sawParked = 0;
  let stop = false;
  runUnit({
    model: {
      step: () => {
        // One busy step, given while the loop was about to sleep: it must not sleep through it.
        if (sawParked === 0) return false;
        stop = true;
        return false;
      },
      hasWork: () => {
        if (words.load(parked) === 0) return false;
        sawParked++;
        return true;
      },
    },
    words,
    clock: tickingClock(),
    unit,
    stopping: () => stop,
  });
  t.is(sawParked, 1);
  t.is(words.load(parked), 0);
});
