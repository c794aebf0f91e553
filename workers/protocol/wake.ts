/** Makes every sleeper of a machine look again now, rather than at the end of its slice of sleep. */
import { PortLayout } from '../../hw/iotlb/port-layout.js';
import { UnitLayout } from '../../hw/iotlb/unit-layout.js';
import type { MachineMemory } from '../../hw/memory/machine-memory.js';
import { Control } from './control.js';

export function wakeSleepers(
  memory: MachineMemory,
  config: { readonly iommus: readonly unknown[]; readonly devices: readonly unknown[] },
): void {
  const { words } = memory;
  config.iommus.forEach((_, unit) => {
    const word = memory.region(UnitLayout, `unit:${unit}`).base + UnitLayout.at.doorbell;
    words.add(word, 1);
    words.notify(word, Number.POSITIVE_INFINITY);
  });
  config.devices.forEach((_, port) => {
    const word = memory.region(PortLayout, `port:${port}`).base + PortLayout.at.answered;
    words.notify(word, Number.POSITIVE_INFINITY);
  });
  new Control(memory).ringCore();
}
