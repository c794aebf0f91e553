/** The report page's style sheet: light and dark, from a phone's width up, and on paper. */
export const PAGE_STYLE = `
:root {
  color-scheme: light dark;
  --bg: #f6f7f9; --card: #ffffff; --text: #14181f; --dim: #566070; --line: #dfe3e9; --grid: #e9ecf1;
  --ok: #0a6b3d; --ok-bg: #dff5e8; --bad: #a3141b; --bad-bg: #fde6e6; --warn: #7a4a00; --warn-bg: #fdf0d5;
  --link: #0b57b0;
  --c0: #2563c9; --c1: #c2570c; --c2: #0b7f5f; --c3: #a8327f; --c4: #7a5bd0; --c5: #8a6d00; --c6: #0e7c9b; --c7: #b3332f;
}
@media (prefers-color-scheme: dark) {
  :root {
    --bg: #0e1116; --card: #161b22; --text: #e8ecf2; --dim: #9aa5b4; --line: #2a323d; --grid: #222a34;
    --ok: #6fdca0; --ok-bg: #0f3322; --bad: #ff9c98; --bad-bg: #43161a; --warn: #f3c26b; --warn-bg: #3b2a08;
    --link: #7db4ff;
    --c0: #6ea8ff; --c1: #ff9f5a; --c2: #4fd1a5; --c3: #f083c4; --c4: #b39dff; --c5: #e0c04a; --c6: #58c7e6; --c7: #ff8a85;
  }
}
* { box-sizing: border-box; }
html { scroll-padding-top: 3.5rem; -webkit-text-size-adjust: 100%; }
body { margin: 0; background: var(--bg); color: var(--text); font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; overflow-wrap: anywhere; }
a { color: var(--link); }
header, main, footer { max-width: 1180px; margin: 0 auto; padding: 0 20px; }
header { padding-top: 28px; }
h1 { font-size: 1.65rem; line-height: 1.2; margin: 0 0 .3rem; letter-spacing: -.01em; overflow-wrap: anywhere; }
h2 { font-size: 1.35rem; margin: 0; letter-spacing: -.01em; overflow-wrap: anywhere; }
h3 { font-size: 1.02rem; margin: 0 0 .2rem; }
.sub, figcaption p, .note { color: var(--dim); margin: 0; }
.note { font-size: .88rem; }
nav { position: sticky; top: 0; z-index: 5; background: var(--bg); border-bottom: 1px solid var(--line); margin-top: 18px; }
nav ul { max-width: 1180px; margin: 0 auto; padding: 8px 20px; list-style: none; display: flex; gap: 6px 18px; overflow-x: auto; }
nav a { text-decoration: none; white-space: nowrap; padding: 4px 0; display: inline-block; }
.verdict { display: inline-block; border-radius: 999px; padding: 3px 12px; font-weight: 650; font-size: .9rem; vertical-align: middle; }
.verdict.ok { color: var(--ok); background: var(--ok-bg); }
.verdict.bad { color: var(--bad); background: var(--bad-bg); }
.verdict.warn { color: var(--warn); background: var(--warn-bg); }
.run { padding: 30px 0 10px; }
.run + .run { border-top: 1px solid var(--line); margin-top: 34px; }
.run > .head { display: flex; flex-wrap: wrap; gap: 6px 14px; align-items: center; margin-bottom: 4px; }
.tiles { display: grid; grid-template-columns: repeat(4, minmax(0, 1fr)); gap: 12px; margin: 16px 0; padding: 0; }
.tile { background: var(--card); border: 1px solid var(--line); border-radius: 12px; padding: 12px 14px; }
.tile dt { color: var(--dim); font-size: .82rem; }
.tile dd { margin: 0; font-size: 1.45rem; font-weight: 650; font-variant-numeric: tabular-nums; letter-spacing: -.02em; }
.tile dd small { font-size: .8rem; font-weight: 500; color: var(--dim); letter-spacing: 0; }
.tile dd.more { font-size: .84rem; font-weight: 400; letter-spacing: 0; color: var(--dim); }
.grid { display: grid; grid-template-columns: repeat(2, minmax(0, 1fr)); gap: 16px; }
.grid + .grid { margin-top: 16px; }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 12px; padding: 16px 18px; margin: 0; min-width: 0; }
.wide { grid-column: 1 / -1; }
.card p { max-width: 75ch; }
figcaption { margin-bottom: 8px; }
figcaption p { font-size: .88rem; }
.plot { position: relative; min-height: 260px; width: 100%; }
.tip { position: absolute; z-index: 3; pointer-events: none; background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: 6px 10px; font-size: .82rem; box-shadow: 0 4px 14px rgb(0 0 0 / .18); display: grid; gap: 1px; max-width: 260px; }
.tip[hidden] { display: none; }
.tip span { display: flex; gap: 6px; align-items: center; overflow-wrap: anywhere; }
.tip em { margin-left: auto; padding-left: 10px; font-style: normal; font-weight: 600; font-variant-numeric: tabular-nums; white-space: nowrap; }
.keys { display: flex; flex-wrap: wrap; gap: 4px; margin-top: 6px; max-height: 8.5rem; overflow-y: auto; }
.keys button { font: inherit; font-size: .84rem; color: var(--text); background: none; border: 1px solid transparent; border-radius: 999px; padding: 2px 10px; min-height: 28px; cursor: pointer; max-width: 100%; overflow-wrap: anywhere; }
.keys button:hover { border-color: var(--line); }
.keys button:focus-visible, summary:focus-visible, a:focus-visible, .scroll:focus-visible { outline: 2px solid var(--link); outline-offset: 2px; }
.keys button[aria-pressed="false"] { color: var(--dim); text-decoration: line-through; }
.mark { display: inline-block; width: 14px; height: 4px; border-radius: 2px; vertical-align: middle; flex: none; }
.mark.box { width: 10px; height: 10px; }
.mark.dashed { width: 16px; background: linear-gradient(90deg, currentColor 40%, transparent 40% 60%, currentColor 60%) !important; }
${Array.from({ length: 8 }, (_, i) => `.k${i} { background: var(--c${i}); color: var(--c${i}); } .f${i} { fill: var(--c${i}); } .s${i} { stroke: var(--c${i}); }`).join('\n')}
.scroll { overflow-x: auto; max-width: 100%; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; color: var(--dim); font-size: .86rem; padding-bottom: 4px; }
th, td { padding: 5px 12px 5px 0; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap; vertical-align: top; }
th { font-weight: 600; color: var(--dim); }
tbody th { color: var(--text); }
th:first-child, td:first-child { text-align: left; }
td .note, th .note { white-space: normal; display: block; font-weight: 400; max-width: 46ch; }
tbody tr:last-child > * { border-bottom: 0; }
th:last-child, td:last-child { padding-right: 0; }
table.pairs td { text-align: left; white-space: normal; overflow-wrap: anywhere; }
table.pairs th { white-space: normal; width: 38%; color: var(--dim); font-weight: 500; }
details { margin-top: 8px; }
summary { cursor: pointer; color: var(--dim); font-size: .88rem; padding: 4px 0; }
details .scroll { max-height: 320px; overflow-y: auto; }
.bars { display: grid; grid-template-columns: fit-content(40%) minmax(40px, 1fr) max-content; gap: 8px 12px; align-items: center; margin: 10px 0; font-size: .9rem; }
.bars svg { width: 100%; height: 18px; display: block; border-radius: 4px; background: var(--grid); }
.bars .n { text-align: right; font-variant-numeric: tabular-nums; }
.chips { display: flex; flex-wrap: wrap; gap: 2px 14px; font-size: .86rem; padding: 0; margin: 6px 0 0; list-style: none; }
.topology svg { display: block; width: 100%; min-width: 640px; height: auto; }
.topology text { fill: var(--text); font: 13px system-ui, sans-serif; }
.topology text.dim { fill: var(--dim); font-size: 11.5px; }
.topology rect.box { fill: var(--card); stroke: var(--line); stroke-width: 1.2; }
.topology path { fill: none; stroke-width: 2; opacity: .62; }
.topology .head { fill: var(--dim); font-size: 12px; }
.story { border-left: 4px solid var(--bad); }
.story dl { display: grid; grid-template-columns: max-content minmax(0, 1fr); gap: 2px 14px; margin: 8px 0 0; font-size: .9rem; }
.story dt { color: var(--dim); }
.story dd { margin: 0; overflow-wrap: anywhere; font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; font-size: .86rem; }
.stories { display: grid; gap: 12px; margin: 16px 0; }
.alert { background: var(--bad-bg); color: var(--bad); border-radius: 12px; padding: 10px 14px; overflow-wrap: anywhere; margin: 12px 0; }
footer { color: var(--dim); font-size: .86rem; padding-top: 26px; padding-bottom: 40px; }
noscript p { background: var(--warn-bg); color: var(--warn); padding: 8px 14px; border-radius: 8px; }
.u-select { background: color-mix(in srgb, var(--link) 18%, transparent); }
.u-vt .u-cursor-x, .u-hz .u-cursor-x { border-right-color: var(--dim); }
@media (max-width: 860px) { .grid { grid-template-columns: minmax(0, 1fr); } }
@media (max-width: 520px) {
  header, main, footer { padding-left: 12px; padding-right: 12px; }
  nav ul { padding-left: 12px; padding-right: 12px; }
  .card { padding: 12px; border-radius: 10px; }
  .tiles { grid-template-columns: repeat(2, minmax(0, 1fr)); gap: 8px; }
  .tile dd:not(.more) { font-size: 1.2rem; }
  .story dl { grid-template-columns: minmax(0, 1fr); }
  .story dd { margin-bottom: 4px; }
  .keys button { min-height: 34px; }
}
@media print { nav { display: none; } .card { break-inside: avoid; } body { background: none; } }
`;
