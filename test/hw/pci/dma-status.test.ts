import test from 'ava';
import { dmaStatusName } from '../../../hw/pci/dma-status.js';

test('dmaStatusName: success, a silent abort, and faults by the names of the specification', (t) => {
  t.is(dmaStatusName(0), 'ok');
  t.is(dmaStatusName(255), 'aborted: the stream is blocked');
  t.is(dmaStatusName(0xfe), 'stalled: software has to resume it');
  t.regex(dmaStatusName(0xfd), /^terminated without telling/);
  t.regex(dmaStatusName(0xfc), /not granted/);
  t.regex(dmaStatusName(0xfb), /Unsupported Request/);
  t.regex(dmaStatusName(0xfa), /Completer Abort/);
  t.is(dmaStatusName(0x02), 'C_BAD_STREAMID');
  t.is(dmaStatusName(0x10), 'F_TRANSLATION');
  t.is(dmaStatusName(0x13), 'F_PERMISSION');
  t.is(dmaStatusName(0x7f), 'unknown status 127');
});
