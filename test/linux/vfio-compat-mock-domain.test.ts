/** vfio_compat_mock_domain: the type 1 container calls over a compatibility IOAS with a mock domain. */
import { EINVAL, ENOENT } from '../../uapi/abi/errno.js';
import { IOMMU_OPTION, Option } from '../../uapi/iommufd/option.js';
import { IOMMU_VFIO_IOAS, VfioIoas } from '../../uapi/iommufd/vfio-ioas.js';
import { Random } from '../kit/random.js';
import { fixture } from './fixture.js';
import { BUFFER_SIZE, HUGEPAGE_SIZE, PAGE, Program } from './program.js';
import * as vfio from './vfio.js';

const random = new Random(2);
const APERTURE_LAST = 0x7fff_ffffn;
const READ_AND_WRITE = 3;
/** VFIO_IOMMU_INFO_PGSIZES and VFIO_IOMMU_INFO_CAPS. */
const INFO_FLAGS = 3;

function shuffled(values: readonly bigint[]): bigint[] {
  const left = [...values];
  return values.map(() => left.splice(random.below(left.length), 1)[0]!);
}

/** Every capability of the chain that GET_INFO left in `bytes`, of which `argsz` are the answer. */
function capabilities(bytes: Uint8Array, capOffset: number, argsz: number) {
  const view = new DataView(bytes.buffer);
  const found: { id: number; version: number; bytes: number; at: number }[] = [];
  for (let at = capOffset; at !== 0; ) {
    if (at + 8 > argsz) throw new Error(`a capability at ${at} of ${argsz}`);
    const next = view.getUint32(at + 4, true);
    if (next !== 0 && next <= at) throw new Error(`the chain goes back to ${next}`);
    const end = next === 0 ? argsz : next;
    found.push({
      id: view.getUint16(at, true),
      version: view.getUint16(at + 2, true),
      bytes: end - at,
      at,
    });
    at = next;
  }
  return found;
}

fixture('vfio_compat_mock_domain', {
  variants: { Ver1v2: vfio.TYPE1v2, Ver1v0: vfio.TYPE1 },
  setup: (t, version: number) => {
    const p = new Program(t);
    const ioasId = p.ioasAlloc();
    t.is(p.mockDomain(ioasId).errno, 0);
    p.ok(p.call(IOMMU_VFIO_IOAS, VfioIoas, { op: 1, ioasId }));
    t.is(vfio.setIommu(p, version), 0);
    return { p, ioasId };
  },
  teardown: (_t, { p }) => p.finish(),
  tests: {
    simple_close: (t) => {
      t.pass('teardown finds nothing left');
    },

    option_huge_pages: (t, { p, ioasId }, version) => {
      const ask = { optionId: 1, op: 1, objectId: ioasId, val64: 3n };
      t.is(p.ok(p.call(IOMMU_OPTION, Option, ask)).val64, version === vfio.TYPE1 ? 0n : 1n);
    },

    get_info: (t, { p }) => {
      const overflow = (bytes: Uint8Array, argsz: number) =>
        bytes.subarray(argsz).some((byte) => byte !== 0xaa);
      const oldest = vfio.getInfo(p, 16);
      t.is(oldest.errno, 0);
      t.not(oldest.out.iovaPgsizes, 0n);
      t.is(oldest.out.flags, INFO_FLAGS);
      t.false(overflow(oldest.bytes, 16), 'nothing behind the struct is written');
      const sized = vfio.getInfo(p, 24);
      t.is(sized.errno, 0);
      t.is(sized.out.flags, INFO_FLAGS);
      t.is(sized.out.capOffset, 0, 'no room for the chain');
      t.false(overflow(sized.bytes, 24));
      const whole = sized.out.argsz;
      t.true(whole > 24);
      let chains = 0;
      for (let argsz = 24; argsz <= whole; argsz++) {
        const { errno, out, bytes } = vfio.getInfo(p, argsz);
        if (errno !== 0 || out.flags !== INFO_FLAGS || overflow(bytes, argsz)) t.fail(`argsz ${argsz}`);
        if (out.capOffset === 0) continue;
        chains++;
        const view = new DataView(bytes.buffer);
        for (const cap of capabilities(bytes, out.capOffset, out.argsz)) {
          t.is(cap.version, 1);
          if (cap.id === 1) {
            t.is(view.getUint32(cap.at + 8, true), 1, 'one range');
            t.is(view.getBigUint64(cap.at + 16, true), vfio.APERTURE_START);
            t.is(view.getBigUint64(cap.at + 24, true), APERTURE_LAST);
          } else {
            t.is(cap.id, 3);
            t.is(cap.bytes, 16, '12, up to the next u64');
          }
        }
      }
      t.true(chains > 0);
    },

    map: (t, { p }) => {
      const iova = vfio.APERTURE_START;
      const size = BigInt(BUFFER_SIZE);
      const map = { flags: READ_AND_WRITE, vaddr: p.buffer, iova, size };
      p.ok(vfio.mapDma(p, map));
      t.is(p.ok(vfio.unmapDma(p, { iova, size })).size, size);
      p.ok(vfio.unmapDma(p, { iova, size }));
      p.ok(vfio.mapDma(p, map));
      t.is(vfio.unmapDma(p, { flags: 2, iova, size }).errno, EINVAL, 'ALL is of no place');
      t.is(p.ok(vfio.unmapDma(p, { flags: 2 })).size, size);
      const pages = Array.from({ length: BUFFER_SIZE / 4096 }, (_, i) => BigInt(i) * PAGE);
      for (const at of pages)
        p.ok(vfio.mapDma(p, { ...map, vaddr: p.buffer + at, iova: iova + at, size: PAGE }));
      for (const at of shuffled(pages)) p.ok(vfio.unmapDma(p, { iova: iova + at, size: PAGE }));
    },

    huge_map: (t, { p }, version) => {
      const bytes = 2 * HUGEPAGE_SIZE;
      const vaddr = p.alloc(bytes, { chunkLg2: 21 });
      const iova = vfio.APERTURE_START;
      p.ok(vfio.mapDma(p, { flags: READ_AND_WRITE, vaddr, iova, size: BigInt(bytes) }));
      const size = BigInt(bytes / 16);
      const parts = Array.from({ length: 16 }, (_, i) => iova + BigInt(i) * size);
      for (const at of shuffled(parts))
        t.is(vfio.unmapDma(p, { iova: at, size }).errno, version === vfio.TYPE1 ? 0 : ENOENT);
    },
  },
});
