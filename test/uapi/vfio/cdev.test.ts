/** Minimum sizes of the VFIO calls, from drivers/vfio/device_cdev.c of Linux 7.0. */

import test from 'ava';
import {
  VfioDeviceAttachIommufdPt,
  VfioDeviceBindIommufd,
  VfioDeviceDetachIommufdPt,
} from '../../../uapi/vfio/cdev.js';

test('bind: callers may stop after out_devid, before the token', (t) => {
  t.is(VfioDeviceBindIommufd.minSize, 16);
  t.is(VfioDeviceBindIommufd.size, 24);
});

test('attach and detach: callers may stop before the pasid', (t) => {
  t.is(VfioDeviceAttachIommufdPt.minSize, 12);
  t.is(VfioDeviceAttachIommufdPt.size, 16);
  t.is(VfioDeviceDetachIommufdPt.minSize, 8);
  t.is(VfioDeviceDetachIommufdPt.size, 12);
});

test('bind: a negative iommufd decodes as negative', (t) => {
  const bytes = new Uint8Array(24);
  bytes.fill(0xff, 8, 12);
  t.is(VfioDeviceBindIommufd.decode(bytes).iommufd, -1);
});
