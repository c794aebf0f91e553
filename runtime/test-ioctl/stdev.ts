/**
 * A stdev: a mock device that the iommufd itself has bound and attached, and that IOMMU_DESTROY detaches, unbinds and
 * destroys. struct selftest_obj.
 *
 * @source drivers/iommu/iommufd/selftest.c iommufd_test_mock_domain, iommufd_test_mock_domain_replace
 */
import { ENOENT } from '../../uapi/abi/errno.js';
import { TestMockDomain, TestMockDomainReplace } from '../../uapi/iommufd/test.js';
import type { IommufdCtx } from '../core/ctx.js';
import { IommufdObject } from '../core/iommufd-object.js';
import { OBJ_SELFTEST } from '../core/objects-layout.js';
import type { MockDevice } from '../drivers/mock/device.js';
import { Device } from '../objects/device.js';
import type { TestCall } from './test-call.js';

class Stdev extends IommufdObject {
  readonly mock: MockDevice;
  readonly device: Device;
  /** Attached by number. */
  readonly pasids = new Set<number>();

  constructor(ctx: IommufdCtx, id: number, mock: MockDevice, device: Device) {
    super(ctx, id, OBJ_SELFTEST);
    this.mock = mock;
    this.device = device;
  }

  override destroy(): void {
    // Linux's leaves these to the program, and loses what they hold.
    for (const pasid of this.pasids) this.device.detach(pasid);
    this.device.detach();
    this.device.unbind();
    this.mock.iommu.destroyDevice(this.mock);
  }
}

/** MOCK_DOMAIN: a device without flags. */
export const mockDomain = (call: TestCall): number => makeStdev(call, 0);

/** MOCK_DOMAIN_FLAGS. */
export const mockDomainFlags = (call: TestCall): number =>
  makeStdev(call, call.read(TestMockDomain).devFlags);

function makeStdev(call: TestCall, flags: number): number {
  const { ctx } = call;
  const id = ctx.reserve(OBJ_SELFTEST);
  if (id < 0) return id;
  const status = bindNew(call, id, flags);
  if (status < 0) ctx.objects.free(id);
  return status;
}

function bindNew(call: TestCall, id: number, flags: number): number {
  const { ctx, mock: iommu } = call;
  const mock = iommu.createDevice(flags);
  if (typeof mock === 'number') return mock;
  const device = Device.bindTo(ctx, mock);
  if (typeof device === 'number') {
    iommu.destroyDevice(mock);
    return device;
  }
  const hwptId = device.attach(call.id);
  if (hwptId < 0) {
    device.unbind();
    iommu.destroyDevice(mock);
    return hwptId;
  }
  const outputs = { outStdevId: id, outHwptId: hwptId, outIdevId: device.id };
  call.respond(TestMockDomain, outputs);
  ctx.publish(new Stdev(ctx, id, mock, device));
  return 0;
}

/** MOCK_DOMAIN_REPLACE. */
export function mockDomainReplace(call: TestCall): number {
  const { ptId } = call.read(TestMockDomainReplace);
  return withStdev(call, ({ device }) => {
    const used = device.replace(ptId);
    return used < 0 ? used : call.respond(TestMockDomainReplace, { ptId: used });
  });
}

/** @returns what `act` says of the stdev that the call is about | -ENOENT */
export function withStdev(call: TestCall, act: (stdev: Stdev) => number): number {
  const stdev = call.ctx.get<Stdev>(call.id, OBJ_SELFTEST);
  if (stdev === undefined) return -ENOENT;
  const status = act(stdev);
  call.ctx.put(stdev);
  return status;
}
