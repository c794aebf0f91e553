/** The seed of this run's random tests: `SEED` from the environment, or a fresh one. Tests log it. */
export const SEED = Number(process.env.SEED ?? Date.now() % 0x7fff_ffff) | 0;
