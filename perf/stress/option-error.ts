/** The one way a run's options are refused: which option, and why. */

/** `option` is the key of StressInput (`devices`, `s2Sharing`); whoever shows it spells it as its user does. */
export class OptionError extends Error {
  readonly option: string;

  constructor(option: string, problem: string) {
    super(problem);
    this.name = 'OptionError';
    this.option = option;
  }
}
