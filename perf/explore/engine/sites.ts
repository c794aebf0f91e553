/**
 * Where in the code an access is, as 20 bits: a hash of the position of the innermost frame that is not of Words, of
 * the kernel's way out to the hook, or of the explorer. The same in every thread, with no table that they share; two
 * places in a million have the same number by chance. A stack capture is 4 to 5 us, more than all of a step without.
 */
const FRAMES = 7;
const BITS = 0xf_ffff;
/** Their frames are between an access and the place that wants it. */
const BETWEEN = /\/perf\/explore\/engine\/|\/hw\/sync\/words\.|\/hw\/kernel\/(variants|kernel)\.|^node:/;

/** Of a script, a hash of its name; 0: its frames are passed over. */
const scripts = new Map<string, number>();
const frames = (_error: Error, sites: NodeJS.CallSite[]): NodeJS.CallSite[] => sites;

/** For ThreadScheduler.siteOf. @returns 0 when the stack says nothing */
export function siteOfCaller(): number {
  const { prepareStackTrace, stackTraceLimit } = Error;
  const holder: { stack?: unknown } = {};
  Error.stackTraceLimit = FRAMES;
  Error.prepareStackTrace = frames;
  Error.captureStackTrace(holder);
  const sites = holder.stack as NodeJS.CallSite[];
  Error.prepareStackTrace = prepareStackTrace;
  Error.stackTraceLimit = stackTraceLimit;
  for (const site of sites) {
    const script = scriptOf(site.getScriptNameOrSourceURL() ?? '');
    if (script !== 0) return mixed(script ^ Math.imul(site.getPosition() + 1, 0x9e3779b1)) & BITS;
  }
  return 0;
}

function scriptOf(name: string): number {
  let hash = scripts.get(name);
  if (hash !== undefined) return hash;
  hash = 0;
  if (!BETWEEN.test(name)) {
    hash = 0x811c9dc5;
    for (let i = 0; i < name.length; i++) hash = Math.imul(hash ^ name.charCodeAt(i), 0x01000193);
    hash ||= 1;
  }
  scripts.set(name, hash);
  return hash;
}

function mixed(hash: number): number {
  let x = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b);
  x = Math.imul(x ^ (x >>> 13), 0xc2b2ae35);
  return x ^ (x >>> 16);
}
