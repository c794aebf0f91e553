/** Wrong usage, told the way the options are spelled on the command line. */
import { OptionError } from '../../perf/stress/option-error.js';
import { ConfigError } from '../../runtime/machine-config.js';
import { EXIT_USAGE, type Output } from '../surroundings.js';

/**
 * Reports an error that is the user's to mend.
 * @returns the exit code, or null when it is not of that kind
 */
export function usageError(command: string, error: unknown, stderr: Output): number | null {
  if (error instanceof OptionError) {
    // `iommufd topology FILE` has no --topology: there the argument is what is meant.
    const where = error.option === command ? '' : ` --${kebab(error.option)}:`;
    stderr.write(`iommufd ${command}:${where} ${error.message}\n`);
    return EXIT_USAGE;
  }
  if (error instanceof ConfigError) {
    stderr.write(`iommufd ${command}: the machine cannot be built: ${error.message}\n`);
    return EXIT_USAGE;
  }
  return null;
}

/** `s2Sharing` is `--s2-sharing`. */
function kebab(option: string): string {
  return option.replace(/([a-z0-9])([A-Z])/g, '$1-$2').toLowerCase();
}

/** The value of an option that is a whole number. @throws OptionError */
export function wholeOption(option: string, text: string, low: number, high: number): number {
  const value = Number(text);
  if (text.trim() === '' || !Number.isInteger(value) || value < low || value > high)
    throw new OptionError(option, `'${text}' is not a whole number from ${low} to ${high}`);
  return value;
}
