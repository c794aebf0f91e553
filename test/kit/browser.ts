/**
 * A real browser for tests of pages: Chromium, headless, offline, with a new profile each time.
 *
 * The one of `CHROMIUM`, or /usr/bin/chromium. Where there is none, tests of the browser are skipped, and their
 * names say why.
 */
import { accessSync, constants, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { type BrowserContext, chromium, type Page } from 'playwright-core';

const executable = process.env.CHROMIUM ?? '/usr/bin/chromium';

/** Why no browser can be started; null when one can. */
export const noBrowser: string | null = (() => {
  try {
    accessSync(executable, constants.X_OK);
    return null;
  } catch {
    return `no ${executable}: install chromium, or set CHROMIUM`;
  }
})();

const FLAGS = [
  '--no-sandbox',
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
];

export interface Look {
  readonly width: number;
  readonly height?: number;
  readonly dark?: boolean;
}

/** What a page did besides being shown. */
export interface Opened {
  readonly page: Page;
  /** What the console said of errors, what was thrown, and what asked for an answer. */
  readonly problems: readonly string[];
  /** Addresses asked for, but for the file itself and data: URLs. */
  readonly requests: readonly string[];
}

/** Opens a file in a browser of its own, and closes all of it afterwards. */
export async function withPage<T>(file: string, look: Look, use: (opened: Opened) => Promise<T>): Promise<T> {
  const profile = mkdtempSync(join(tmpdir(), 'iommufd-browser-'));
  let context: BrowserContext | undefined;
  try {
    context = await chromium.launchPersistentContext(profile, {
      executablePath: executable,
      headless: true,
      args: FLAGS,
      offline: true,
      viewport: { width: look.width, height: look.height ?? 900 },
      colorScheme: look.dark ? 'dark' : 'light',
    });
    const page = context.pages()[0] ?? (await context.newPage());
    const problems: string[] = [];
    const requests: string[] = [];
    page.on('console', (message) => {
      if (message.type() === 'error') problems.push(message.text());
    });
    page.on('pageerror', (error) => problems.push(error.message));
    page.on('dialog', (dialog) => {
      problems.push(`dialog: ${dialog.message()}`);
      void dialog.dismiss();
    });
    const url = `file://${file}`;
    page.on('request', (request) => {
      if (request.url() !== url && !request.url().startsWith('data:')) requests.push(request.url());
    });
    await page.goto(url);
    return await use({ page, problems, requests });
  } finally {
    await context?.close();
    rmSync(profile, { recursive: true, force: true });
  }
}

/** `test.serial` where there is a browser, else a skipped test that says why. */
export function browserTest(name: string, body: (t: ExecutionContext) => Promise<void>): void {
  if (noBrowser === null) test.serial(name, body);
  else test.skip(`${name} (${noBrowser})`, body);
}
