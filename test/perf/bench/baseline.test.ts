import test, { type ExecutionContext } from 'ava';
import { PORT_BATCH, XLAT_BYTES } from '../../../hw/iotlb/port-layout.js';
import { Kernel } from '../../../hw/kernel/kernel.js';
import { MachineMemory } from '../../../hw/memory/machine-memory.js';
import { PROT_READ, PROT_WRITE } from '../../../hw/pagetable/aarch64.js';
import { Baseline, compileBaseline, NO_CC } from '../../../perf/bench/baseline.js';
import { FIRST_PAGE } from '../../../perf/bench/machines.js';
import { runWalks, type WalkImage, type WalkKind, walkImage } from '../../../perf/bench/walks.js';
import { answersHash } from '../../../perf/bench/yardstick.js';

const compiled = compileBaseline(Kernel.load(MachineMemory.create({ ramBytes: 2 ** 21 })));
test.after.always(() => {
  if (typeof compiled === 'object') compiled.remove();
});

const PAGES = 4096;
const KINDS: readonly WalkKind[] = ['stage 1', 'nested'];

async function started(t: ExecutionContext, image: WalkImage): Promise<Baseline | null> {
  if (compiled === NO_CC) {
    t.log('skipped: no C compiler');
    t.pass();
    return null;
  }
  if (typeof compiled === 'string') throw new Error(compiled);
  const c = await Baseline.start(compiled, image.memory);
  t.teardown(() => c.stop());
  return c;
}

/** The same batches in C and by the kernel. @returns the two hashes of the last segment's answers */
async function bothHashes(c: Baseline, image: WalkImage, seed: number): Promise<[number, number]> {
  const { memory, unit, context, iotlb, xlats, pages } = image;
  const batches = 8;
  const { faults } = await c.ask(
    'walks',
    unit,
    context,
    iotlb,
    xlats,
    PORT_BATCH,
    batches,
    FIRST_PAGE,
    pages,
    seed,
  );
  if (faults !== 0) throw new Error(`${faults} faults in C`);
  runWalks(image, batches, seed);
  const n = seed === 0 ? PORT_BATCH : batches * PORT_BATCH;
  const { hash } = await c.ask('answers', xlats, n);
  return [hash!, answersHash(memory, xlats, n)];
}

for (const kind of KINDS)
  test(`yardstick: ${kind} walks give the kernel's answers on the same image`, async (t) => {
    const image = walkImage(kind, PAGES);
    const c = await started(t, image);
    if (c === null) return;
    for (const seed of [0, 1, 12345]) {
      const [theirs, ours] = await bothHashes(c, image, seed);
      t.is(theirs, ours);
    }
    // The hash sees a single wrong bit.
    image.memory.u32[(image.xlats + 5 * XLAT_BYTES + 24) >>> 2]! ^= 1 << 12;
    const { hash } = await c.ask('answers', image.xlats, PORT_BATCH);
    t.not(hash, answersHash(image.memory, image.xlats, PORT_BATCH));
  });

for (const kind of KINDS)
  test(`yardstick: pages that C mapped in the ${kind} tables translate as those the kernel's editor mapped`, async (t) => {
    const image = walkImage(kind, PAGES);
    const c = await started(t, image);
    if (c === null) return;
    const { stage1, stage1Descriptor, lastTableFrame, memory, xlats, unit, context, iotlb } = image;
    // Further on: pages, then blocks of 2 MiB, then pages again, over frames that are translated already.
    const first = FIRST_PAGE + 2 ** 20;
    const page = first - (first % 512) + 500;
    const pfn = stage1.lookup(FIRST_PAGE);
    const from = pfn - (pfn % 512) + 512 + 500;
    const pages = 12 + 1024 + 7;
    t.is(stage1.map(page, from, pages, PROT_READ | PROT_WRITE), 0);
    await c.ask('frames', (lastTableFrame - 15) * 4096, 16);
    t.is((await c.ask('map', stage1Descriptor, page, from, pages)).done, pages);
    for (const offset of [0, 12, 512, 960, pages - PORT_BATCH]) {
      // Seed 0 takes the pages in turn; the answers hold addresses, so both must agree on each.
      for (let slot = 0; slot < PORT_BATCH; slot++) {
        const word = (xlats + slot * XLAT_BYTES) >>> 2;
        const at = page + offset + slot;
        memory.u32[word] = at << 12;
        memory.u32[word + 1] = at >>> 20;
      }
      t.is(image.kernel.translateBatch(unit, context, iotlb, xlats, PORT_BATCH), 0);
      const ours = answersHash(memory, xlats, PORT_BATCH);
      const { faults } = await c.ask(
        'walks',
        unit,
        context,
        iotlb,
        xlats,
        PORT_BATCH,
        1,
        page + offset,
        pages,
        0,
      );
      t.is(faults, 0);
      t.is((await c.ask('answers', xlats, PORT_BATCH)).hash, ours, `offset ${offset}`);
    }
    t.is(stage1.unmap(page, pages), pages);
  });
