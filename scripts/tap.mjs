// Reads the Test Anything Protocol (https://testanything.org, version 13) as ava writes it: a line a test,
// the details of a failure as an indented YAML block behind its line, what a test logged as comments.

/**
 * Counts tests, and says the lines that belong to failed ones.
 * @param {AsyncIterable<string>} lines
 * @param {(text: string) => void} say
 * @param {(counts: { passed: number, failed: number, skipped: number }) => void} [seen]  told after each test
 * @returns {Promise<{ passed: number, failed: number, skipped: number }>}
 */
export async function readTap(lines, say, seen) {
  const counts = { passed: 0, failed: 0, skipped: 0 };
  let failing = false;
  for await (const line of lines) {
    const [, not, rest] = /^(not )?ok \d+(.*)$/.exec(line) ?? [];
    if (rest !== undefined) {
      failing = false;
      if (/ # (skip|todo)/i.test(rest)) counts.skipped++;
      else if (not) {
        counts.failed++;
        failing = true;
        say(`FAILED${rest}`);
      } else counts.passed++;
      seen?.(counts);
    } else if (/^(TAP version|\d+\.\.\d+|# (tests|pass|fail|skip) \d+)/.test(line) || line === '') continue;
    else if (line.startsWith(' ') || line.startsWith('#')) {
      if (failing) say(line);
    } else say(line);
  }
  return counts;
}
