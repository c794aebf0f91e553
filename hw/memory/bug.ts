/**
 * A contradiction inside the model itself: never the answer to bad input (that is an errno, an event or an
 * abort), always a defect of this program.
 */
export function bug(message: string): never {
  throw new Error(`bug in the model: ${message}`);
}
