/** What the explore variant imports, under the name of this file. The normal variant imports the memory alone. */
export declare function schedulePoint(op: i32, at: usize): void;
