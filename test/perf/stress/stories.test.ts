import test from 'ava';
import { type AtcFacts, inferAtc } from '../../../perf/stress/checker/atc-inference.js';
import { atcsOf, Checker } from '../../../perf/stress/checker/checker.js';
import { commandText, covers, tlbiOf } from '../../../perf/stress/checker/consumed-command.js';
import { type Facts, type InvalidationFacts, infer } from '../../../perf/stress/checker/inference.js';
import { Shadow } from '../../../perf/stress/checker/shadow.js';
import { Stories } from '../../../perf/stress/checker/stories.js';
import { DmaBatch, EXPECT_OK } from '../../../perf/stress/programs/dma-batch.js';
import { Random } from '../../../perf/stress/random.js';
import { StressLayout } from '../../../perf/stress/stress-layout.js';
import { createMachine } from '../../../runtime/machine.js';

/** [IHI0070] 4.4: opcode, NUM in 16:12, SCALE in 24:20; VMID below ASID; TG in 11:10, page from bit 12. */
const NH_VA = 0x12;
const S2_IPA = 0x2a;
const NH_ALL = 0x10;
const SYNC = 0x46;

function tlbi(opcode: number, vmid: number, asid: number, page = 0, num = 0, scale = 0) {
  return {
    opcode,
    words: [opcode | (num << 12) | (scale << 20), (asid << 16) | vmid, (page << 12) | (1 << 10), page >>> 20],
  };
}

const ENTRY = {
  vmid: 0,
  asid: 1,
  page: 0x20_0400,
  sizeLg2: 21,
  global: false,
  stage1: true,
  stage2: false,
};

/** Issued at 10, TLBI at 11, SYNC fetched at 12 and completed at 13, seen at 14, the frame freed at 15. */
function facts(over: Partial<Facts> = {}, invalidation: Partial<InvalidationFacts> = {}, vmid = 0): Facts {
  return {
    iommu: 'smmu1',
    entry: ENTRY,
    walkTick: 5,
    freedTick: 15,
    use: { began: 20, translated: 21, judged: 22 },
    seenTick: null,
    invalidation: {
      tickIssued: 10,
      tickDone: 14,
      syncFetched: 12,
      syncCompleted: 13,
      sent: { command: 'CMD_TLBI_NH_VA', firstPage: 0x20_0400, pages: 512 },
      consumed: [
        { ...tlbi(NH_VA, vmid, 1, 0x20_0400, 0, 9), seq: 1, index: 0, tick: 11 },
        { opcode: SYNC, words: [SYNC, 0, 0, 0], seq: 2, index: 1, tick: 12 },
      ],
      ...invalidation,
    },
    ...over,
  };
}

test('commandText: answers to page requests and verdicts on stalls, in words', (t) => {
  // [IHI0070] 4.5.2: PRGIndex at 64, Resp at 76; 4.7.1: Ac at 12, Ab at 13, STAG at 64; the StreamID at 32.
  const text = (opcode: number, ...rest: number[]) =>
    commandText({ opcode, words: [opcode | rest[0]!, ...rest.slice(1)] });
  t.is(text(0x41, 0, 0x200, (2 << 12) | 7, 0), 'CMD_PRI_RESP stream 0x200 group 7 Success');
  t.is(text(0x41, 0, 0x200, 3, 0), 'CMD_PRI_RESP stream 0x200 group 3 Response Failure');
  t.is(text(0x44, 1 << 12, 0x100, 0x101, 0), 'CMD_RESUME stream 0x100 STAG 0x101 retry');
  t.is(text(0x44, 1 << 13, 0x100, 0x101, 0), 'CMD_RESUME stream 0x100 STAG 0x101 abort');
  t.is(text(0x44, 0, 0x100, 0x101, 0), 'CMD_RESUME stream 0x100 STAG 0x101 RAZ/WI');
  t.is(text(0x45, 0, 0x100, 0, 0), 'CMD_STALL_TERM stream 0x100');
});

test('command: told by name, tag, pages, and a SYNC by its signal', (t) => {
  t.is(commandText(tlbi(NH_VA, 1, 1, 0x20_0400, 0, 9)), 'CMD_TLBI_NH_VA VMID 1 ASID 1 pages 0x200400..+512');
  t.is(commandText(tlbi(NH_VA, 1, 1, 0x20_0400, 2, 3)), 'CMD_TLBI_NH_VA VMID 1 ASID 1 pages 0x200400..+24');
  t.is(commandText(tlbi(S2_IPA, 3, 0, 0x4_0000, 15, 0)), 'CMD_TLBI_S2_IPA VMID 3 pages 0x40000..+16');
  t.is(commandText(tlbi(NH_ALL, 3, 0)), 'CMD_TLBI_NH_ALL VMID 3');
  t.is(commandText({ opcode: SYNC, words: [0x2046, 0, 0, 0] }), 'CMD_SYNC CS SIG_SEV');
  t.is(commandText({ opcode: 0x03, words: [3, 0x300, 1, 0] }), 'CMD_CFGI_STE stream 0x300');
});

test('command: covers an entry by tag, range and stage', (t) => {
  const of = (...args: Parameters<typeof tlbi>) => tlbiOf(tlbi(...args))!;
  t.true(covers(of(NH_VA, 0, 1, 0x20_05ff), ENTRY));
  t.false(covers(of(NH_VA, 0, 1, 0x20_0600), ENTRY));
  t.false(covers(of(NH_VA, 0, 2, 0x20_0400), ENTRY));
  t.true(covers(of(NH_VA, 0, 2, 0x20_0400), { ...ENTRY, global: true }));
  t.false(covers(of(NH_VA, 1, 1, 0x20_0400), ENTRY));
  t.false(covers(of(S2_IPA, 0, 0, 0x20_0400), { ...ENTRY, stage2: true }));
  t.true(covers(of(S2_IPA, 0, 0, 0x20_0400), { ...ENTRY, stage1: false, stage2: true }));
  t.true(covers(of(NH_ALL, 0, 0), ENTRY));
  t.is(tlbiOf({ opcode: SYNC, words: [SYNC, 0, 0, 0] }), null);
});

test('command: EL2 forms and entries concern each other alone', (t) => {
  const [ALL, ASID, VA, VAA] = [0x20, 0x21, 0x22, 0x23];
  const el2 = { ...ENTRY, stage1: false };
  const of = (...args: Parameters<typeof tlbi>) => tlbiOf(tlbi(...args))!;
  t.true(covers(of(ALL, 0, 0), el2));
  t.true(covers(of(ASID, 0, 1), el2));
  t.false(covers(of(ASID, 0, 2), el2));
  t.false(covers(of(ASID, 0, 1), { ...el2, global: true }));
  t.true(covers(of(VA, 0, 1, 0x20_0400), el2));
  t.false(covers(of(VA, 0, 2, 0x20_0400), el2));
  t.true(covers(of(VA, 0, 2, 0x20_0400), { ...el2, global: true }));
  t.false(covers(of(VA, 0, 1, 0x20_0600), el2));
  t.true(covers(of(VAA, 0, 0, 0x20_0400), el2));
  for (const opcode of [ALL, ASID, VA, VAA]) t.false(covers(of(opcode, 0, 1, 0x20_0400), ENTRY));
  for (const opcode of [0x10, 0x11, 0x12, 0x13, 0x28, 0x2a, 0x30])
    t.false(covers(of(opcode, 0, 1, 0x20_0400), el2));
  t.is(commandText(tlbi(VA, 0, 6, 0x40)), 'CMD_TLBI_EL2_VA ASID 6 pages 0x40..+1');
});

test('command: an ATC invalidation names stream, substream and range', (t) => {
  const ATC_INV = 0x40;
  const text = (...words: [number, number, number, number]) => commandText({ opcode: ATC_INV, words });
  t.is(text(ATC_INV, 0x100, 52, 0), 'CMD_ATC_INV stream 0x100 all');
  t.is(text(ATC_INV, 0x100, 4 | (0x10 << 12), 0), 'CMD_ATC_INV stream 0x100 pages 0x10..+16');
  t.is(text(ATC_INV | (1 << 11) | (3 << 12), 0x100, 52, 0), 'CMD_ATC_INV stream 0x100 substream 0x3 all');
});

test('infer: consumed, and used by a DMA that began after, or still held', (t) => {
  t.is(infer(facts()), 'smmu1 consumed the invalidation but went on using the entry');
  t.is(infer(facts({ use: null, seenTick: 15 })), 'smmu1 consumed the invalidation but kept the entry');
});

test('infer: nothing, when the entry is not known, is newer, or the DMA may have begun before', (t) => {
  t.is(infer(facts({ entry: null })), null);
  t.is(infer(facts({ walkTick: null })), null);
  t.is(infer(facts({ walkTick: 16 })), null);
  t.is(infer(facts({ invalidation: null })), null);
  t.is(infer(facts({}, { consumed: [] })), null);
  t.is(infer(facts({ use: null })), null);
});

test('infer: another VMID or ASID than the translation carries', (t) => {
  t.is(infer(facts({}, {}, 1)), 'the invalidation named VMID 1, the translation carries VMID 0');
  t.is(
    infer(facts({ entry: { ...ENTRY, asid: 4 } })),
    'the invalidation named ASID 1, the translation carries ASID 4',
  );
  // One that was not sent by this unmap accuses nobody.
  t.is(infer(facts({}, { sent: null }, 1)), null);
});

test('infer: the SYNC did not wait', (t) => {
  const text = 'the SYNC completed while this DMA was under way';
  t.is(infer(facts({ use: { began: 8, translated: 9, judged: 16 } })), text);
  t.is(infer(facts({ use: { began: 8, translated: 9, judged: 16 }, entry: null })), text);
  // It ended before; it began when the SYNC had been fetched, so that it need not be waited for.
  t.is(infer(facts({ use: { began: 8, translated: 9, judged: 10 }, entry: null })), null);
  t.is(infer(facts({ use: { began: 13, translated: 14, judged: 16 }, entry: null })), null);
  // Without a trace of the SYNC: only if it had its address before anything was issued.
  const untraced = { syncFetched: null, syncCompleted: null };
  t.is(infer(facts({ use: { began: 8, translated: 9, judged: 16 } }, untraced)), text);
  t.is(infer(facts({ use: { began: 8, translated: 11, judged: 16 }, entry: null }, untraced)), null);
});

test('infer: freed before the SYNC had completed', (t) => {
  const text = 'the frame was freed before the SYNC had completed';
  t.is(infer(facts({ freedTick: 9 })), text);
  t.is(infer(facts({ freedTick: 12 })), text);
  t.is(infer(facts({ freedTick: 9 }, { syncCompleted: null })), text);
  t.not(infer(facts({ freedTick: 12 }, { syncCompleted: null })), text);
});

/** One device, a block of 2 MiB mapped and used, unmapped with a bug in the machine, and used again. */
function told(bug: 'skipTlbi' | 'wrongVmid' | 'earlyFree' | 'skipAtcInv', ats = false) {
  let checker: Checker | undefined;
  let shadow: Shadow | undefined;
  const machine = createMachine(
    {
      memory: '64MiB',
      iommus: [{ name: 'smmu0', model: 'smmuv3', iotlbEntries: 256 }],
      devices: [{ bdf: '0000:01:00.0', iommu: 'smmu0', ats }],
      trace: true,
      bugs: { iommu: 0, [bug]: true },
    },
    {
      instrument: (memory, kernel, config) => {
        Shadow.allocRegions(memory);
        memory.allocRegion(StressLayout, 'stress');
        shadow = new Shadow(memory);
        const iommus = config.iommus.map(({ name, iotlbEntries }, index) => ({ name, index, iotlbEntries }));
        checker = new Checker(memory, kernel, shadow, iommus, atcsOf(config.devices));
        return { observer: checker };
      },
    },
  );
  const fd = machine.openIommufd();
  const vfio = machine.openVfio('0000:01:00.0');
  vfio.bindIommufd(fd);
  const { ioasId } = fd.ioasAlloc();
  vfio.attach(ioasId);
  const length = 16 * 4096;
  const userVa = machine.user.alloc(length);
  fd.ioasMap({ ioasId, userVa, length, iova: 0x40_0000n });
  const { memory } = machine;
  const stats = memory.region(StressLayout, 'stress').base + StressLayout.at.devices;
  const port = machine.dmaPort('0000:01:00.0');
  const who = { device: 0, owner: ioasId, vm: -1 };
  const batch = new DmaBatch(machine.env, memory, port, shadow!, new Random(1), who, stats);
  const use = () => {
    batch.add(0x403, true, EXPECT_OK);
    return batch.run();
  };
  const first = use();
  fd.ioasUnmap({ ioasId, iova: 0x40_0000n, length });
  const second = use();
  checker!.sweep();
  const { label, sid } = machine.config.devices[0]!;
  const stories = new Stories(memory, shadow!, checker!, [{ label, iommu: 0, sid }], ['smmu0']).take();
  return { first, second, label, stories };
}

test('story: a skipped TLBI, told by the DMA, by the IOTLB and by the canary', (t) => {
  const { first, second, label, stories } = told('skipTlbi');
  t.deepEqual([first, second], [1, 1]);
  const [dma, entry, canary] = stories;
  t.is(stories.length, 3);
  t.like(dma, { rule: 'R1', device: label, iommu: 'smmu0', stream: '0x100' });
  t.regex(dma!.walk!, /^4 KiB translation served by .* walk \d+ at tick \d+: stream 0x100 0x403000 -> PA /);
  t.regex(dma!.details[0]!, /^the DMA write began at tick \d+, was judged at tick \d+$/);
  t.regex(dma!.details[1]!, /^the frame was freed at tick \d+$/);
  t.true(dma!.details.some((line) => /CMD_TLBI_NH_VA VMID 0 ASID \d+ pages 0x400..\+16 at/.test(line)));
  t.is(dma!.details.at(-1), 'smmu0 consumed the invalidation but went on using the entry');
  t.like(entry, { rule: 'R7', device: label, stream: '0x100', iova: '0x403000' });
  t.is(entry!.details.at(-1), 'smmu0 consumed the invalidation but kept the entry');
  t.like(canary, { rule: 'R1', device: label, iommu: 'smmu0', stream: '0x100', iova: '0x403000' });
  t.regex(canary!.walk!, /walk \d+ /);
  t.regex(canary!.sync!, /CMD_SYNC/);
  t.is(canary!.details.at(-1), 'smmu0 consumed the invalidation but went on using the entry');
});

test('story: an invalidation under the wrong VMID', (t) => {
  const { stories } = told('wrongVmid');
  for (const { details } of stories)
    t.is(details.at(-1), 'the invalidation named VMID 1, the translation carries VMID 0');
  t.is(stories.length, 3);
});

test('story: a frame freed before its invalidation', (t) => {
  const { second, stories } = told('earlyFree');
  // On one thread the invalidation is complete by the time of the second DMA: only R7 can see it.
  t.is(second, 0);
  const seen = stories.find(({ rule }) => rule === 'R7');
  t.is(seen?.details.at(-1), 'the frame was freed before the SYNC had completed');
});

test('story: an ATC that was not invalidated, told by the core, by the DMA and by the canary', (t) => {
  const { first, second, label, stories } = told('skipAtcInv', true);
  t.deepEqual([first, second], [1, 1]);
  t.deepEqual(
    stories.map(({ rule }) => rule),
    ['R2', 'R2', 'R1'],
  );
  const [dma, kept, canary] = stories;
  for (const story of [dma!, kept!, canary!]) {
    t.like(story, { device: label, iommu: 'smmu0', stream: '0x100' });
    t.regex(
      story.walk!,
      /^4 KiB translation served by the device's ATC, made by walk \d+ at tick \d+: stream 0x100 /,
    );
    t.regex(story.invalidation!, /CMD_TLBI_NH_VA with tag \d+ to smmu0, issued after tick \d+$/);
    t.regex(story.sync!, /^CMD_SYNC at index \d+ /);
    t.is(story.details.at(-1), 'no CMD_ATC_INV was issued for stream 0x100');
  }
  t.regex(dma!.summary, /^DMA write reached frame 0x[0-9a-f]+ after an unmap had freed it$/);
  t.regex(kept!.summary, /while the ATC of 0000:01:00\.0 still held 0x403000 -> 0x[0-9a-f]+ \(4 KiB\)$/);
});

test('story: where the IOTLB is to blame, the ATC that asked it is not', (t) => {
  const { stories } = told('skipTlbi', true);
  const atc = stories.filter(({ rule }) => rule === 'R2');
  t.deepEqual(atc, []);
  t.true(
    stories.some(({ details }) => details.at(-1) === 'smmu0 consumed the invalidation but kept the entry'),
  );
});

/** TLBI at 11, its SYNC complete at 13; ATC_INV at 21. */
function atcFacts(over: Partial<AtcFacts> = {}, atcTick = 21, stream = 0x300): AtcFacts {
  const invalidation = facts().invalidation!;
  const atc = {
    ...invalidation,
    consumed: [{ opcode: 0x40, words: [0x40, stream, 52, 0], seq: 3, index: 2, tick: atcTick }],
  };
  return { iommu: 'smmu1', sid: 0x300, tlbi: invalidation, atc, walkTick: 5, ...over };
}

test('infer: an ATC invalidation that was left out, came first, or did not do its work', (t) => {
  const first = /^CMD_ATC_INV was consumed before the SYNC of the TLBI had completed: /;
  t.is(inferAtc(atcFacts({ atc: null })), 'no CMD_ATC_INV was issued for stream 0x300');
  t.regex(inferAtc(atcFacts({}, 10))!, first);
  t.regex(inferAtc(atcFacts({}, 12))!, first);
  t.regex(inferAtc(atcFacts())!, /^smmu1 consumed CMD_ATC_INV after the TLBI, but the ATC has a translation/);
  t.is(inferAtc(atcFacts({ walkTick: 22 })), null);
  t.is(inferAtc(atcFacts({ walkTick: null })), null);
  t.is(inferAtc(atcFacts({ tlbi: null })), null);
  t.is(inferAtc(atcFacts({}, 21, 0x400)), null);
});

test('infer: a guest’s TLBI and ATC_INV are one invalidation', (t) => {
  const { tlbi, atc } = atcFacts();
  const both = { ...tlbi!, consumed: [...tlbi!.consumed, ...atc!.consumed] };
  t.is(inferAtc(atcFacts({ tlbi, atc: tlbi })), 'no CMD_ATC_INV was issued for stream 0x300');
  t.regex(inferAtc(atcFacts({ tlbi: both, atc: both }))!, /older$/);
  const early = { ...tlbi!, consumed: [...atcFacts({}, 10).atc!.consumed, ...tlbi!.consumed] };
  t.regex(inferAtc(atcFacts({ tlbi: early, atc: early }))!, /^CMD_ATC_INV was consumed before/);
  t.is(inferAtc(atcFacts({ tlbi: { ...tlbi!, consumed: [] }, atc: { ...tlbi!, consumed: [] } })), null);
});
