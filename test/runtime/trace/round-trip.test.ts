/** Every call that a trace can hold leads to a line and to JSON, and both lead back to it. */
import test from 'ava';
import fc from 'fast-check';
import { type IoctlCall, isProblem } from '../../../runtime/trace/call.js';
import { formatCall, formatJson, text } from '../../../runtime/trace/format.js';
import { type AnyStruct, TRACED_IOCTLS } from '../../../runtime/trace/ioctls.js';
import { parseCall } from '../../../runtime/trace/parse.js';
import { encodeRecord, RecordReader } from '../../../runtime/trace/records.js';
import { Scanner } from '../../../runtime/trace/scan.js';
import { TraceReader } from '../../../runtime/trace/strace.js';
import type { TreeNode } from '../../../runtime/trace/tree.js';
import { structToTree, treeToStruct } from '../../../runtime/trace/tree.js';
import * as uapi from '../../../uapi/index.js';
import { TestCmd } from '../../../uapi/iommufd/test.js';

const SEED = Number(process.env.SEED ?? Date.now() % 2 ** 31);
const runs = (numRuns: number) => ({ seed: SEED, numRuns });
test.before((t) => t.log(`SEED=${SEED}`));

const STRUCTS = Object.values({ ...uapi, TestCmd } as Record<string, unknown>).filter(
  (value): value is AnyStruct =>
    typeof value === 'object' && value !== null && 'cName' in value && 'offsets' in value,
);

/** Bytes with the values that flags, enumerators and lengths have, and with any. */
const wordly = fc
  .array(fc.oneof(fc.constantFrom(0, 1, 2, 3, 4, 16, 24, 40, 48, 0xffff_ffff), fc.nat(), fc.integer()), {
    minLength: 0,
    maxLength: 20,
  })
  .map((words) => new Uint8Array(Uint32Array.from(words).buffer));

const callOf = (cmd: fc.Arbitrary<number>): fc.Arbitrary<IoctlCall> =>
  fc
    .record(
      {
        pid: fc.nat(),
        fd: fc.integer({ min: -1, max: 1 << 20 }),
        path: fc.constantFrom('/dev/iommu', '/dev/null<char 1:3>', 'socket:[1->2]'),
        time: fc.constantFrom('23:58:46', '1795219126.389665', '00:00:00.000001'),
        cmd,
        in: wordly,
        out: wordly,
        cut: fc.nat(3),
        data: wordly,
        outData: wordly,
        result: fc.oneof(fc.nat(1 << 30), fc.integer({ min: -133, max: -1 }), fc.constant(null)),
      },
      { requiredKeys: ['cmd', 'in', 'result'] },
    )
    .map(({ cut = 0, path, ...call }) => ({
      ...call,
      // A file's name stands at its descriptor.
      ...(path === undefined || call.fd === undefined ? {} : { path }),
      in: call.in.subarray(0, Math.max(0, call.in.byteLength - cut)),
    }));

/** What a call means: no change is no `out`. */
function meant(call: IoctlCall): IoctlCall {
  const { out, ...rest } = call;
  const same = out === undefined || Buffer.compare(out, call.in!) === 0;
  return { ...rest, ...(same ? {} : { out }) } as IoctlCall;
}

const plain = (call: IoctlCall) =>
  Object.fromEntries(
    Object.entries(call).map(([key, value]) => [
      key,
      value instanceof Uint8Array ? Buffer.from(value).toString('hex') : value,
    ]),
  );

for (const struct of STRUCTS)
  test(`trace: ${struct.cName} of any values and any length comes back`, (t) => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: struct.size + 9 }), fc.boolean(), (bytes, sized) => {
        if (sized && bytes.byteLength >= 4) bytes.set(Uint8Array.of(bytes.byteLength, 0, 0, 0));
        const tree = structToTree(struct, bytes);
        const line = new Scanner(text(tree)).tree() as TreeNode;
        t.deepEqual(treeToStruct(struct, line), bytes);
        t.deepEqual(treeToStruct(struct, JSON.parse(JSON.stringify(tree))), bytes);
      }),
      runs(60),
    );
  });

test('trace: a call comes back from its line and from its JSON', (t) => {
  const known = fc.constantFrom(...TRACED_IOCTLS.map(({ cmd }) => cmd));
  const cmd = fc.oneof(known, known, fc.nat(0xffff_ffff), fc.constant(0x3b95));
  fc.assert(
    fc.property(callOf(cmd), fc.boolean(), (call, raw) => {
      for (const format of [formatCall, formatJson]) {
        const said = format(call, { raw });
        const back = parseCall(said);
        if (isProblem(back)) return t.fail(`${back.problem}: ${said}`);
        t.deepEqual(plain(back), plain(meant(call)), said);
      }
      return undefined;
    }),
    runs(1500),
  );
});

test('trace: a call that has its argument and no bytes comes back', (t) => {
  for (const { cmd } of TRACED_IOCTLS)
    for (const arg of [0n, 1n, 3n, 11n, 0x7ffc_1234_5678n])
      for (const format of [formatCall, formatJson]) {
        const call = { fd: 3, cmd, arg, result: -25 };
        t.deepEqual(parseCall(format(call)), call);
      }
});

test('trace: binary records come back, in whatever pieces they arrive', (t) => {
  fc.assert(
    fc.property(
      fc.array(fc.tuple(fc.nat(0xffff_ffff), wordly), { maxLength: 5 }),
      fc.integer({ min: 1, max: 9 }),
      (calls, piece) => {
        const given = calls.map(([cmd, bytes]): IoctlCall => ({ cmd, in: bytes, result: null }));
        const all = Buffer.concat(given.map(encodeRecord));
        const reader = new RecordReader();
        const found = [];
        for (let at = 0; at < all.byteLength; at += piece)
          found.push(...reader.push(all.subarray(at, at + piece)));
        t.deepEqual([...found, ...reader.end()], given);
      },
    ),
    runs(100),
  );
});

/** Lines as they are, and with something changed that a text may have changed. */
function hostile(): fc.Arbitrary<string> {
  const cmd = fc.constantFrom(...TRACED_IOCTLS.map((row) => row.cmd));
  const line = fc
    .tuple(callOf(cmd), fc.boolean())
    .map(([call, json]) => (json ? formatJson(call) : formatCall(call)));
  const piece = fc.constantFrom(
    ...[
      '{',
      '}',
      '[',
      ']',
      '=',
      ',',
      '(',
      ')',
      '=>',
      '/*',
      '*/',
      '"',
      '<',
      '>',
      'hex:',
      '0x',
      '|',
      '-1 ',
      '99999999999999999999',
    ],
    ...[
      '__proto__',
      'constructor',
      'toString',
      'bytes=99999999',
      'bytes=-1',
      ' or ',
      '_IOC(',
      'ioctl(',
      '[pid ',
      '{{{{{{{{{{',
      '[[[[[[[[[[',
    ],
    ...[
      '<unfinished ...>',
      '<... ioctl resumed>',
      'read(5<anon_inode:[iommufd-pgfault]>, "',
      ' | 00000  05 00 ',
      'null',
      'NaN',
      '\u0000',
      '\ud800',
    ],
  );
  const change = fc.record({
    at: fc.nat(400),
    cut: fc.nat(30),
    put: fc.oneof(piece, fc.string({ maxLength: 6 })),
  });
  return fc.oneof(
    fc
      .tuple(line, fc.array(change, { maxLength: 4 }))
      .map(([text, changes]) =>
        changes.reduce((whole, { at, cut, put }) => whole.slice(0, at) + put + whole.slice(at + cut), text),
      ),
    fc.array(piece, { maxLength: 12 }).map((pieces) => pieces.join('')),
    fc.string({ maxLength: 200 }),
  );
}

test('trace: no text makes the reader throw, and what it takes for a call comes back', (t) => {
  fc.assert(
    fc.property(fc.array(hostile(), { maxLength: 4 }), (lines) => {
      const reader = new TraceReader();
      const items = [...lines.flatMap((line) => reader.push(line)), ...reader.end()];
      for (const item of items) {
        if (item.kind === 'problem') t.true(item.problem.length < 300, item.problem);
        if (item.kind !== 'call') continue;
        const again = parseCall(formatJson(item.call));
        if (isProblem(again)) t.fail(`${again.problem}: ${formatJson(item.call)}`);
        else t.deepEqual(plain(meant(again)), plain(meant(item.call)));
      }
    }),
    runs(3000),
  );
});

test('trace: a list of a length that the struct does not have is refused by name', (t) => {
  const struct = uapi.HwptArmSmmuv3 as unknown as AnyStruct;
  t.throws(() => treeToStruct(struct, { ste: ['0x1'] }), { message: /ste is a list of 2/ });
});
