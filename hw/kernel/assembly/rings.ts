/**
 * The two rings between a device and its pIOMMU: one producer and one consumer each, free-running indexes,
 * slots of one Xlat. The producer fills slots and then publishes its index; the consumer empties slots and
 * then publishes its own.
 *
 * The device's memory is hostile to the pIOMMU: an index pair more than a ring apart makes no sense, and the
 * ring then counts as empty (for taking) or full (for answering). Slots are reached modulo the ring, and a
 * request is copied out before it is looked at, so nothing a device writes leads outside or changes later.
 */
import {
  PORT_ANSWERED,
  PORT_PARKED,
  PORT_REQ,
  PORT_REQ_CONS,
  PORT_REQ_PROD,
  PORT_RESP,
  PORT_RESP_CONS,
  PORT_RESP_PROD,
  PORT_RING_SLOTS,
  XLAT_BYTES,
} from './layout';
import { notifyAll, OP_LOAD, OP_RMW, OP_STORE, schedulePoint } from './machine';

export function copyXlat(to: usize, from: usize): void {
  store<u64>(to, load<u64>(from));
  store<u64>(to, load<u64>(from, 8), 8);
  store<u64>(to, load<u64>(from, 16), 16);
  store<u64>(to, load<u64>(from, 24), 24);
  store<u64>(to, load<u64>(from, 32), 32);
  store<u64>(to, load<u64>(from, 40), 40);
  store<u64>(to, load<u64>(from, 48), 48);
  store<u64>(to, load<u64>(from, 56), 56);
}

export function ringSlot(slots: usize, index: u32): usize {
  return slots + (index % PORT_RING_SLOTS) * XLAT_BYTES;
}

export function takeRequests(port: usize, dst: usize, max: u32): u32 {
  const cons = load<u32>(port, PORT_REQ_CONS);
  schedulePoint(OP_LOAD, port + PORT_REQ_PROD);
  const prod = atomic.load<u32>(port, PORT_REQ_PROD);
  const filled = prod - cons;
  if (filled > PORT_RING_SLOTS) {
    schedulePoint(OP_STORE, port + PORT_REQ_CONS);
    atomic.store<u32>(port, prod, PORT_REQ_CONS);
    return 0;
  }
  const n = min(filled, max);
  if (n == 0) return 0;
  schedulePoint(OP_LOAD, ringSlot(port + PORT_REQ, cons));
  for (let i: u32 = 0; i < n; i++) copyXlat(dst + i * XLAT_BYTES, ringSlot(port + PORT_REQ, cons + i));
  schedulePoint(OP_STORE, port + PORT_REQ_CONS);
  atomic.store<u32>(port, cons + n, PORT_REQ_CONS);
  return n;
}

export function answer(port: usize, src: usize, n: u32): u32 {
  const prod = load<u32>(port, PORT_RESP_PROD);
  schedulePoint(OP_LOAD, port + PORT_RESP_CONS);
  const filled = prod - atomic.load<u32>(port, PORT_RESP_CONS);
  const room: u32 = filled > PORT_RING_SLOTS ? 0 : min(PORT_RING_SLOTS - filled, n);
  if (room != 0) schedulePoint(OP_STORE, ringSlot(port + PORT_RESP, prod));
  for (let i: u32 = 0; i < room; i++) copyXlat(ringSlot(port + PORT_RESP, prod + i), src + i * XLAT_BYTES);
  if (room != 0) {
    schedulePoint(OP_STORE, port + PORT_RESP_PROD);
    atomic.store<u32>(port, prod + room, PORT_RESP_PROD);
  }
  // Add before looking at `parked`: a device that announces itself and then reads `answered` misses nothing.
  schedulePoint(OP_RMW, port + PORT_ANSWERED);
  atomic.add<u32>(port, 1, PORT_ANSWERED);
  schedulePoint(OP_LOAD, port + PORT_PARKED);
  if (atomic.load<u32>(port, PORT_PARKED) != 0) notifyAll(port + PORT_ANSWERED);
  return room;
}
