import test from 'ava';
import { UnitLayout } from '../../../hw/iotlb/unit-layout.js';
import { atcsOf, Checker } from '../../../perf/stress/checker/checker.js';
import { canaryOf, Shadow } from '../../../perf/stress/checker/shadow.js';
import { createMachine } from '../../../runtime/machine.js';

/** A machine on one thread, the checker watching. */
function watched({ ats = false, bugs = {} }: { ats?: boolean; bugs?: object } = {}) {
  let checker: Checker | undefined;
  let shadow: Shadow | undefined;
  const machine = createMachine(
    {
      memory: '64MiB',
      iommus: [
        { name: 'smmu0', model: 'smmuv3', iotlbEntries: 256 },
        { name: 'smmu1', model: 'smmuv3', iotlbEntries: 256 },
      ],
      devices: [
        { bdf: '0000:01:00.0', iommu: 'smmu0', ats },
        { bdf: '0001:01:00.0', iommu: 'smmu1', ats },
      ],
      bugs,
      trace: true,
    },
    {
      instrument: (memory, kernel, config) => {
        Shadow.allocRegions(memory);
        shadow = new Shadow(memory);
        checker = new Checker(
          memory,
          kernel,
          shadow,
          config.iommus.map(({ name, iotlbEntries }, index) => ({ name, index, iotlbEntries })),
          atcsOf(config.devices),
        );
        const observer = checker;
        return { observer, onAllocateTag: (iommu, kind, id) => observer.idAllocated(iommu, kind, id) };
      },
    },
  );
  const fd = machine.openIommufd();
  const vfio = machine.openVfio('0000:01:00.0');
  vfio.bindIommufd(fd);
  const { ioasId } = fd.ioasAlloc();
  vfio.attach(ioasId);
  const userVa = machine.user.alloc(64 * 4096);
  const run = { pfn: 0, pages: 0 };
  machine.user.runAt(Number(userVa >> 12n), run);
  const map = () => fd.ioasMap({ ioasId, userVa, length: 64 * 4096, iova: 0x40_0000n });
  const unmap = () => fd.ioasUnmap({ ioasId, iova: 0x40_0000n, length: 64 * 4096 });
  return { machine, fd, ioasId, checker: checker!, shadow: shadow!, pfn: run.pfn, map, unmap };
}

test('checker: map, DMA, unmap of a correct machine finds nothing, and counts what it looked at', (t) => {
  const { machine, checker, map, unmap } = watched();
  map();
  t.is(machine.dmaPort('0000:01:00.0').write(0x40_0000n, new Uint8Array(4096).fill(1)), 0);
  unmap();
  map();
  unmap();
  checker.sweep();
  t.deepEqual(checker.findings, []);
  t.is(checker.checks.canary, 128);
  t.true(checker.checks.R7 >= 4);
  t.is(checker.checks.R6, 1);
});

test('checker: the shadow names owner and page while mapped, and is dead after', (t) => {
  const { shadow, ioasId, pfn, map, unmap } = watched();
  map();
  t.is(shadow.word(pfn + 3, 0), ioasId);
  t.is(shadow.word(pfn + 3, 1), 0x403);
  unmap();
  t.is(shadow.word(pfn + 3, 0), -1);
});

test('checker: a frame written after its unmap breaks its canary, found when it is mapped again', (t) => {
  const { machine, checker, pfn, map, unmap } = watched();
  map();
  unmap();
  const linear = machine.memory.linearOf((pfn + 5) * 4096 + 40, 4);
  t.is(machine.memory.i32[linear / 4], canaryOf(pfn + 5));
  machine.memory.i32[linear / 4] = 0x1234;
  map();
  t.is(checker.findings.length, 1);
  t.like(checker.findings[0], { kind: 'canary', pfn: pfn + 5, word: 10, value: 0x1234 });
});

test('checker: an IOTLB entry that outlives its unmap is found on whichever SMMU it is (R7)', (t) => {
  const { machine, checker, pfn, map, unmap } = watched();
  map();
  const { memory, kernel } = machine;
  const unit = memory.u32;
  t.truthy(unit);
  const handle = machine.handle().memory.regions;
  kernel.iotlbFill(
    handle['unit:1']!.base,
    handle['iotlb:1']!.base,
    7 | (9 << 16),
    0x999,
    pfn + 2,
    12,
    0b110010,
  );
  unmap();
  t.is(checker.findings.length, 1);
  t.like(checker.findings[0], { kind: 'iotlb', iommu: 1 });
});

test('checker: once a pIOMMU’s thread is dead, frames that are freed are nobody’s to judge', (t) => {
  const { machine, checker, shadow, pfn, map } = watched();
  map();
  const { memory, env } = machine;
  env.threads.markDead(memory.words.load(memory.region(UnitLayout, 'unit:0').base + UnitLayout.at.owner));
  // A tag flushed in vain before: the unmap itself has nothing to invalidate there, and knows of no failure.
  checker.unmapped(1, 0x400, pfn, 1, []);
  t.deepEqual(checker.findings, []);
  t.not(shadow.word(pfn, 0), -1, 'not dead');
});

test('checker: an ASID handed out while an entry carries it is found (R6)', (t) => {
  const { machine, checker } = watched();
  const { kernel } = machine;
  const handle = machine.handle().memory.regions;
  kernel.iotlbFill(handle['unit:1']!.base, handle['iotlb:1']!.base, 3 << 16, 0x999, 0x8_0000, 12, 0b010110);
  checker.idAllocated(1, 'asid', 3);
  checker.idAllocated(0, 'asid', 3);
  t.deepEqual(
    checker.findings.map((finding) => finding.kind),
    ['id'],
  );
});

test('checker: with ATCs that the driver invalidates, nothing is found, and all of them were looked into', (t) => {
  const { machine, checker, map, unmap } = watched({ ats: true });
  map();
  const port = machine.dmaPort('0000:01:00.0');
  t.true(port.ats.enabled);
  t.is(port.write(0x40_0000n, new Uint8Array(64 * 4096).fill(1)), 0);
  unmap();
  t.deepEqual(checker.findings, []);
  t.true(checker.checks.R2 >= 2);
});

test('checker: an ATC that still leads to freed frames is found (R2), while its device would use it', (t) => {
  const { machine, checker, pfn, map, unmap } = watched({ ats: true, bugs: { skipAtcInv: true } });
  map();
  const port = machine.dmaPort('0000:01:00.0');
  t.is(port.write(0x40_5000n, new Uint8Array(8)), 0);
  unmap();
  t.is(checker.findings.length, 1);
  t.like(checker.findings[0], { kind: 'atc', iommu: 0, device: 0 });
  t.like((checker.findings[0] as { entry: object }).entry, { page: 0x405, pfn: pfn + 5 });
  // Switched off and on again: the device empties its ATC before it looks there.
  map();
  port.ats.disable();
  port.ats.enable();
  unmap();
  t.is(checker.findings.length, 1);
});

test('checker: a translation older than the TLBI that survives its ATC_INV is found, wherever it leads (R2)', (t) => {
  const { machine, checker, map, unmap } = watched({ ats: true, bugs: { skipAtcInv: true } });
  map();
  const port = machine.dmaPort('0000:01:00.0');
  t.is(port.write(0x40_5000n, new Uint8Array(8)), 0);
  const { sid } = machine.config.devices[0]!;
  const note = {
    iommu: 0,
    firstPage: 0x400,
    pages: 64,
    syncIndex: 0,
    tickIssued: 1_000_000,
    tickDone: 1_000_001,
    durationNs: 1,
    failed: false,
  };
  // Frames that nobody reaches.
  const other = machine.memory.ram.basePa / 4096 + machine.memory.ram.bytes / 4096 - 1;
  const unmapped = (tlbiTick: number, atcStream: number) =>
    checker.unmapped(1, 0x400, other, 1, [
      { ...note, tag: 1, command: 'CMD_TLBI_NH_VA', tickIssued: tlbiTick },
      { ...note, tag: atcStream, command: 'CMD_ATC_INV' },
    ]);
  unmapped(1_000_000, sid + 1);
  unmapped(0, sid);
  t.deepEqual(checker.findings, []);
  unmapped(1_000_000, sid);
  t.like(checker.findings[0], { kind: 'atc', device: 0 });
  t.like((checker.findings[0] as { entry: object }).entry, { page: 0x405 });
  unmap();
});
