/**
 * Public entry point `iommufd/smmuv3`: what a driver author needs of [IHI0070], as declarations: registers, stream
 * table entries, context descriptors, commands, events, and the arithmetic of queue pointers. No model.
 */
export type { BitSpec, Field32, Field64, Reg32, Reg64, Struct, StructField } from './bitfield.js';
export * from './cd.js';
export * from './command.js';
export * from './event.js';
export type { InterruptSource } from './interrupt-lines.js';
export type { Mmio } from './mmio.js';
export * from './queue.js';
export * from './registers.js';
export type { ResetLine } from './reset.js';
export * from './ste.js';
