/** `iommufd decode` on files and on standard input. */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { main } from '../../scripts/cli.js';

async function decode(t: ExecutionContext, input: string | Uint8Array, ...flags: string[]) {
  const folder = mkdtempSync(join(tmpdir(), 'iommufd-decode-'));
  t.teardown(() => rmSync(folder, { recursive: true }));
  const file = join(folder, 'in');
  writeFileSync(file, input);
  const out: Uint8Array[] = [];
  let stderr = '';
  const code = await main(['decode', file, ...flags], {
    stdout: { write: (text: string | Uint8Array) => out.push(Buffer.from(text as string)) },
    stderr: { write: (text) => (stderr += text) },
    signal: new AbortController().signal,
    loadStress: () => Promise.reject(new Error('no run was expected')),
  });
  return {
    code,
    out: Buffer.concat(out),
    stdout: Buffer.concat(out).toString(),
    stderr: stderr.replaceAll(file, 'FILE'),
  };
}

const LINE = 'ioctl(?, IOMMU_IOAS_UNMAP, {size=24, ioas_id=1, iova=0x1000, length=0xffffffffffffffff}) = ?\n';
const HEX = '0x3b86 18000000010000000010000000000000ffffffffffffffff\n';
const JSON_LINE =
  '{"ioctl":"IOMMU_IOAS_UNMAP","in":{"size":24,"ioas_id":1,"iova":"0x1000","length":"0xffffffffffffffff"},"result":null}\n';

test('decode: lines, hex text, JSON and records all say the same', async (t) => {
  const records = (await decode(t, LINE, '--encode', '--binary')).out;
  t.is(records.byteLength, 8 + 24);
  for (const input of [LINE, HEX, JSON_LINE, records]) {
    t.is((await decode(t, input)).stdout, LINE);
    t.is((await decode(t, input, '--json')).stdout, JSON_LINE);
    t.is((await decode(t, input, '--encode')).stdout, HEX);
    t.is((await decode(t, input, '--encode', '--json')).stdout.includes('"in":"hex:18000000'), true);
    t.deepEqual((await decode(t, input, '--encode', '--binary')).out, records);
  }
});

test('decode: what is wrong is told with its line, the rest is decoded, and the exit code says so', async (t) => {
  const { code, stdout, stderr } = await decode(
    t,
    `${LINE}ioctl(3, IOMMU_DESTROY, {x=1}) = 0\nhello\r\n${LINE}`,
  );
  t.is(code, 1);
  t.is(stdout, `${LINE}hello\n${LINE}`);
  t.is(stderr, "FILE:2: iommu_destroy has no field 'x'\n");
});

test('decode: a request whose bytes are no hex is wrong; text without any ioctl is passed on, and said so', async (t) => {
  const broken = await decode(t, `0x3b86 18zz\n${HEX}`);
  t.is(broken.code, 1);
  t.is(broken.stdout, LINE);
  t.is(broken.stderr, "FILE:1: after a request come its struct's bytes in hex, not '18zz'\n");
  const none = await decode(t, 'hello\nworld\n');
  t.is(none.code, 0);
  t.is(none.stdout, 'hello\nworld\n');
  t.is(none.stderr, 'FILE: no ioctl in 2 lines, which are passed on as they are\n');
  t.is((await decode(t, `hello\n${HEX}`)).stderr, '');
});

test('decode: many wrong lines are counted after the first', async (t) => {
  const { code, stderr } = await decode(t, 'ioctl(\n'.repeat(1000));
  t.is(code, 1);
  t.is(stderr.trimEnd().split('\n').length, 21);
  t.regex(stderr, /FILE: 980 more lines are wrong/);
});

test('decode: strace alone has addresses, and that is said once', async (t) => {
  const { code, stdout, stderr } = await decode(
    t,
    'ioctl(3, _IOC(_IOC_NONE, 0x3b, 0x81, 0), 0x7ffca0db0e1c) = 0\n'.repeat(2),
  );
  t.is(code, 0);
  t.is(
    stdout,
    'ioctl(3, IOMMU_IOAS_ALLOC, 0x7ffca0db0e1c /* the bytes are not in the trace */) = 0\n'.repeat(2),
  );
  t.regex(stderr, /of 2 of 2 ioctls only the address of the struct is in the trace/);
});

test('decode: what --encode leaves out is counted', async (t) => {
  const trace =
    'ioctl(3, VFIO_GET_API_VERSION, 0x0) = 0\n' +
    'read(5<anon_inode:[iommufd-pgfault]>, [], 40) = 0\n' +
    'ioctl(3, IOMMU_DESTROY, {id=3}) = 0\nclose(3) = 0\n';
  const { code, stdout, stderr } = await decode(t, trace, '--encode');
  t.is(code, 0);
  t.is(stdout, '0x3b80 0800000003000000\n');
  t.regex(stderr, /: 2 calls that have no struct .* are left out\n$/);
});

test('decode: a line without end, and records that lie about their length, end cleanly', async (t) => {
  const long = await decode(t, `${'{'.repeat(3 * 2 ** 20)}\n${LINE}`);
  t.is(long.code, 1);
  t.is(long.stderr, 'FILE:1: longer than 1048576 characters\n');
  t.true(long.stdout.endsWith(LINE));
  const liar = await decode(t, Uint8Array.of(0x86, 0x3b, 0, 0, 0xff, 0xff, 0xff, 0xff, 1, 2, 3));
  t.is(liar.stderr, 'FILE: the record at byte 0 claims 4294967295 bytes\n');
  const short = await decode(t, Uint8Array.of(0x86, 0x3b, 0, 0, 24, 0, 0, 0, 1, 2, 3));
  t.is(short.stderr, 'FILE: the record at byte 0 ends early\n');
  t.is((await decode(t, '')).code, 0);
});

test('decode: standard input, and the exit code of the process', (t) => {
  const command = join(import.meta.dirname, '../../scripts/iommufd.js');
  const { status, stdout } = spawnSync(process.execPath, [command, 'decode', '-'], {
    input: HEX,
    encoding: 'utf8',
    timeout: 30_000,
  });
  t.is(stdout, LINE);
  t.is(status, 0);
});
