export function probe(p: usize): u64 {
  return atomic.load<u64>(p);
}
export function cas(p: usize, a: u64, b: u64): u64 {
  return atomic.cmpxchg<u64>(p, a, b);
}
export function nt(p: usize): i32 {
  return atomic.notify(p, 1);
}
