/**
 * basic_fail_nth: whichever allocation fails, the call says so, and closing the files leaves nothing behind. The
 * scenario is run with the first allocation failing, then the second, until none is left to fail.
 */
import type { ExecutionContext } from 'ava';
import { HwptSelftest } from '../../uapi/drivers/selftest.js';
import { FaultAlloc, IOMMU_FAULT_QUEUE_ALLOC } from '../../uapi/iommufd/fault.js';
import { HwInfo, IOMMU_GET_HW_INFO } from '../../uapi/iommufd/hw-info.js';
import { HwQueueAlloc, IOMMU_HW_QUEUE_ALLOC } from '../../uapi/iommufd/hw-queue.js';
import { IOMMU_IOAS_ALLOC, IoasAlloc } from '../../uapi/iommufd/ioas.js';
import {
  IOMMU_TEST_OP_PASID_ATTACH,
  IOMMU_TEST_OP_PASID_DETACH,
  IOMMU_TEST_OP_PASID_REPLACE,
  MOCK_ACCESS_RW_SLOW_PATH,
  MOCK_ACCESS_RW_WRITE,
  MOCK_FLAGS_ACCESS_CREATE_NEEDS_PIN_PAGES,
  MOCK_FLAGS_DEVICE_PASID,
  TestPasidAttach,
  TestPasidDetach,
} from '../../uapi/iommufd/test.js';
import { IOMMU_VDEVICE_ALLOC, VdeviceAlloc } from '../../uapi/iommufd/vdevice.js';
import { IOMMU_VEVENTQ_ALLOC, VeventqAlloc } from '../../uapi/iommufd/veventq.js';
import { IOMMU_VIOMMU_ALLOC, ViommuAlloc } from '../../uapi/iommufd/viommu.js';
import { fixture } from './fixture.js';
import { BUFFER_SIZE, PAGE, Program } from './program.js';

const APERTURE_START = 0x100_0000n;
const BIG = 262144;
const [ENOENT, ENOMEM, EFAULT, EINVAL] = [2, 12, 14, 22];

/** What a failure at a place becomes where that is not ENOMEM; 0: the call has another way, and succeeds. */
const OTHERWISE: Readonly<Record<string, readonly number[]>> = {
  get_object: [ENOENT, EINVAL, 0],
  enforce_resv_regions: [EINVAL, 0],
  pin_user_pages: [EFAULT],
  pin_user_pages_remote: [EINVAL],
  pages_to_xarray: [EINVAL],
};
/** More would not end in time, and is a scenario that never gets past a point. */
const MAX_POINTS = 2000;

/** One run of a scenario: stops at the first call that fails. */
class Run {
  readonly p: Program;
  readonly access: number[] = [];
  pasid: { stdevId: number; pasid: number } | null = null;

  constructor(p: Program) {
    this.p = p;
  }

  /** From here on allocations can fail. */
  enable(nth: number): void {
    this.p.machine.core.own.failNth.arm(nth);
  }

  /** @throws Failed */
  must<R extends { readonly errno: number }>(result: R): R {
    if (result.errno !== 0) throw new Failed(result.errno);
    return result;
  }

  done(errno: number): void {
    if (errno !== 0) throw new Failed(errno);
  }

  ioas(): number {
    return this.must(this.p.call(IOMMU_IOAS_ALLOC, IoasAlloc, {})).out.outIoasId;
  }

  map(ioasId: number, va: bigint, length: number): bigint {
    return this.must(this.p.map(ioasId, va, length)).out.iova;
  }

  openAccess(ioasId: number, flags: number): number {
    const access = this.must(this.p.tryCreateAccess(ioasId, flags)).out.outAccessFd;
    this.access.push(access);
    return access;
  }

  closeAccess(): void {
    const access = this.access.pop();
    if (access !== undefined) this.p.closeFd(access);
  }
}

class Failed extends Error {
  readonly errno: number;

  constructor(errno: number) {
    super(`errno ${errno}`);
    this.errno = errno;
  }
}

/** @param scenario  calls run.enable(nth) where allocations begin to fail */
function everyPoint(t: ExecutionContext, scenario: (run: Run, nth: number) => void): void {
  const sites = new Set<string>();
  for (let nth = 1; nth <= MAX_POINTS; nth++) {
    const p = new Program(t);
    const run = new Run(p);
    let errno = 0;
    try {
      scenario(run, nth);
    } catch (error) {
      if (!(error instanceof Failed)) throw error;
      errno = error.errno;
    }
    const { failNth } = p.machine.core.own;
    const { failedAt } = failNth;
    failNth.arm(0);
    while (run.access.length > 0) run.closeAccess();
    if (run.pasid !== null)
      p.test(IOMMU_TEST_OP_PASID_DETACH, run.pasid.stdevId, TestPasidDetach, { pasid: run.pasid.pasid });
    p.finish();
    if (failedAt === null) {
      t.is(errno, 0, 'nothing failed, so the scenario succeeds');
      t.true(nth > 1, 'something could fail');
      t.log(`${nth - 1} allocations at ${sites.size} places`);
      return;
    }
    sites.add(failedAt);
    if (!(OTHERWISE[failedAt] ?? [ENOMEM]).includes(errno)) {
      t.fail(`allocation ${nth} (${failedAt}) failed, and the errno was ${errno}`);
      return;
    }
  }
  t.fail(`more than ${MAX_POINTS} allocations`);
}

/** Domains made and destroyed around a map of 64 pages, with little memory for batches. */
function mapWithDomains(
  run: Run,
  nth: number,
  before: number,
  during: number,
  map: (ioasId: number) => void,
) {
  const { p } = run;
  const ioasId = run.ioas();
  p.memoryLimit(32);
  const stdevs: number[] = [];
  const domain = () => stdevs.push(run.must(p.mockDomain(ioasId)).stdevId);
  for (let i = 0; i < before; i++) domain();
  run.enable(nth);
  for (let i = 0; i < during; i++) domain();
  map(ioasId);
  for (const stdevId of stdevs) run.done(p.destroy(stdevId));
  for (let i = 0; i < before + during; i++) domain();
}

function accessPin(run: Run, nth: number, withDomain: boolean): void {
  const { p } = run;
  const ioasId = run.ioas();
  p.memoryLimit(32);
  const stdevId = withDomain ? run.must(p.mockDomain(ioasId)).stdevId : 0;
  const iova = run.map(ioasId, p.buffer, BUFFER_SIZE);
  const access = run.openAccess(ioasId, MOCK_FLAGS_ACCESS_CREATE_NEEDS_PIN_PAGES);
  run.enable(nth);
  const { outAccessPagesId } = run.must(p.accessPages(access, iova, BUFFER_SIZE, p.buffer)).out;
  run.done(p.destroyAccessPages(access, outAccessPagesId));
  run.closeAccess();
  if (stdevId !== 0) run.done(p.destroy(stdevId));
}

fixture('basic_fail_nth', {
  variants: {},
  setup: () => undefined,
  // Every run of a scenario has a program of its own, which it finishes.
  teardown: () => undefined,
  tests: {
    basic: (t) =>
      everyPoint(t, (run, nth) => {
        const { p } = run;
        run.enable(nth);
        const ioasId = run.ioas();
        run.must(p.iovaRanges(ioasId, 10));
        run.done(p.allow(ioasId, [{ start: 0x4000n, last: BigInt(BUFFER_SIZE) + 0x4000n * 600n - 1n }]));
        const iova = run.map(ioasId, p.buffer, BUFFER_SIZE);
        run.must(p.copyAnywhere(ioasId, ioasId, iova, 160));
        run.must(p.unmap(ioasId, iova, BUFFER_SIZE));
        p.unmap(ioasId, iova, BUFFER_SIZE);
      }),

    map_domain: (t) =>
      everyPoint(t, (run, nth) =>
        mapWithDomains(run, nth, 0, 1, (ioasId) => run.map(ioasId, run.p.buffer, BIG)),
      ),

    map_file_domain: (t) =>
      everyPoint(t, (run, nth) => {
        const memfd = run.p.memfd(BIG);
        mapWithDomains(run, nth, 0, 1, (ioasId) => run.must(run.p.mapFile(ioasId, memfd.fd, 0n, BIG)));
      }),

    map_two_domains: (t) =>
      everyPoint(t, (run, nth) =>
        mapWithDomains(run, nth, 1, 1, (ioasId) => run.map(ioasId, run.p.buffer, BIG)),
      ),

    access_rw: (t) =>
      everyPoint(t, (run, nth) => {
        const { p } = run;
        const ioasId = run.ioas();
        p.memoryLimit(32);
        const iova = run.map(ioasId, p.buffer, BIG);
        const tmp = p.buffer + BigInt(BIG);
        run.enable(nth);
        const access = run.openAccess(ioasId, 0);
        for (const flags of [0, MOCK_ACCESS_RW_SLOW_PATH])
          for (const write of [0, MOCK_ACCESS_RW_WRITE])
            run.done(p.accessRw(access, iova, 64, tmp, flags | write));
        run.done(p.accessRw(access, iova, 32768, tmp, MOCK_ACCESS_RW_SLOW_PATH));
        run.closeAccess();
      }),

    access_pin: (t) => everyPoint(t, (run, nth) => accessPin(run, nth, false)),
    access_pin_domain: (t) => everyPoint(t, (run, nth) => accessPin(run, nth, true)),

    device: (t) =>
      everyPoint(t, (run, nth) => {
        const { p } = run;
        const [NEST_PARENT, FAULT_ID_VALID, ALLOC_PASID] = [1, 4, 8];
        const [first, second] = [run.ioas(), run.ioas()];
        for (const ioasId of [first, second]) run.must(p.map(ioasId, p.buffer, PAGE, APERTURE_START));
        p.write(p.buffer, HwptSelftest.toBytes({ iotlb: 0xbadbeef }));
        const data = { type: 0xdead, va: p.buffer, len: HwptSelftest.size };
        run.enable(nth);
        const { stdevId, deviceId } = run.must(p.mockDomain(first, MOCK_FLAGS_DEVICE_PASID));
        const info = { devId: deviceId, dataLen: 8, dataUptr: p.buffer + PAGE };
        run.must(p.call(IOMMU_GET_HW_INFO, HwInfo, info));
        const pasidTable = run.must(p.hwptAlloc(deviceId, first, ALLOC_PASID)).out.outHwptId;
        run.done(p.mockReplace(stdevId, second));
        run.done(p.mockReplace(stdevId, pasidTable));
        const parent = run.must(p.hwptAlloc(deviceId, first, NEST_PARENT | ALLOC_PASID)).out.outHwptId;
        const viommu = { type: 0xdeadbeef, devId: deviceId, hwptId: parent };
        const { outViommuId: viommuId } = run.must(p.call(IOMMU_VIOMMU_ALLOC, ViommuAlloc, viommu)).out;
        run.must(p.call(IOMMU_VDEVICE_ALLOC, VdeviceAlloc, { viommuId, devId: deviceId, virtId: 0n }));
        const queue = { viommuId, type: 0xdeadbeef, nestingParentIova: APERTURE_START, length: PAGE };
        run.must(p.call(IOMMU_HW_QUEUE_ALLOC, HwQueueAlloc, queue));
        const fault = run.must(p.call(IOMMU_FAULT_QUEUE_ALLOC, FaultAlloc, {})).out;
        p.closeFd(fault.outFaultFd);
        run.must(p.hwptAlloc(deviceId, parent, FAULT_ID_VALID, data, fault.outFaultId));
        const events = { viommuId, type: 0xbeefbeef, veventqDepth: 2 };
        p.closeFd(run.must(p.call(IOMMU_VEVENTQ_ALLOC, VeventqAlloc, events)).out.outVeventqFd);
        const another = run.must(p.hwptAlloc(deviceId, first, ALLOC_PASID)).out.outHwptId;
        const pasid = 200;
        run.must(p.test(IOMMU_TEST_OP_PASID_ATTACH, stdevId, TestPasidAttach, { pasid, ptId: parent }));
        run.pasid = { stdevId, pasid };
        run.must(p.test(IOMMU_TEST_OP_PASID_REPLACE, stdevId, TestPasidAttach, { pasid, ptId: another }));
        run.must(p.test(IOMMU_TEST_OP_PASID_DETACH, stdevId, TestPasidDetach, { pasid }));
        run.pasid = null;
      }),
  },
});
