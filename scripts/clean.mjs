// Removes everything a build or a run made; node_modules stays.
import { fs } from 'zx';

process.chdir(`${import.meta.dirname}/..`);
for (const path of ['dist', 'report.json', 'report.html']) await fs.remove(path);
