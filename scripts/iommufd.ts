#!/usr/bin/env node
/** The `iommufd` command: this process's streams and signals around `main`. */
import { runCommand } from './process.js';

await runCommand(process.argv.slice(2));
