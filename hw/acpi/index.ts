/** Public entry point `iommufd/acpi`: machines as firmware describes them, from an IORT or ready made. */
export { describeIort } from './describe-iort.js';
export * from './description.js';
export { IortError } from './iort-error.js';
export { iortOf } from './iort-from-description.js';
export { PRESETS } from './presets.js';
