/** What a scenario can see of a command queue: every command from where it began to look, in order, across the wrap. */
import test from 'ava';
import { CommandStream } from '../../../../perf/explore/monitors/command-stream.js';
import { createMachine } from '../../../../runtime/machine.js';

const [TLBI_S12_VMALL, SYNC] = [0x28, 0x46];

test('command stream: commands since it began, each with its place, also where the queue wraps', (t) => {
  const machine = createMachine({
    memory: '4MiB',
    iommus: [{ name: 'smmu0', model: 'smmuv3', cmdqLog2: 7, evtqLog2: 4, priqLog2: 4 }],
    devices: [{ bdf: '0000:01:00.0', iommu: 'smmu0' }],
  });
  const { smmu } = machine.iommus[0]!.instance;
  for (let round = 0; round < 3; round++) {
    const stream = new CommandStream(machine.memory);
    t.is(stream.length, 0);
    for (let i = 0; i < 30; i++) t.is(smmu.flushVmid(100 + i), 0);
    t.is(stream.length, 60);
    const commands = stream.commands();
    t.deepEqual(
      commands.map(({ place }) => place),
      Array.from({ length: 60 }, (_, i) => i),
    );
    t.true(commands.every(({ opcode }, i) => opcode === (i % 2 === 0 ? TLBI_S12_VMALL : SYNC)));
    const vmids = commands.filter((_, i) => i % 2 === 0).map(({ words }) => words[1]! & 0xffff);
    t.deepEqual(
      vmids,
      Array.from({ length: 30 }, (_, i) => 100 + i),
    );
  }
  machine.close();
});
