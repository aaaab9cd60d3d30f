"""The style of the memory pages, light and dark. Colours have a contrast of at least 4.5 as text and 3 as shapes."""

from __future__ import annotations

STYLE = """
:root {
  color-scheme: light dark;
  --page: #f6f7f9; --card: #ffffff; --text: #1b1f24; --soft: #57606a; --line: #d0d7de; --ink: rgba(255, 255, 255, .62);
  --weights: #2f5fb3; --activation: #c2410c; --nontorch: #6b7280; --graphs: #8b3fb0; --cache: #1f7a4d;
  --outside: #475569; --uncharged: #a3338a; --free: #ffffff; --over: #b42318;
  --fits: #116b3c; --tight: #8a5a00; --no: #b42318;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #0d1117; --card: #161b22; --text: #e6edf3; --soft: #9da7b3; --line: #30363d; --ink: rgba(0, 0, 0, .5);
    --weights: #6ea8ff; --activation: #ff9a5c; --nontorch: #a5b0bd; --graphs: #cf9bf0; --cache: #4cc38a;
    --outside: #8b9bb0; --uncharged: #f08fd8; --free: #161b22; --over: #ff7b72;
    --fits: #4cc38a; --tight: #e3b341; --no: #ff7b72;
  }
}
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 64rem; padding: 1.5rem 1rem 3rem; background: var(--page); color: var(--text);
  font: 1rem/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
h1 { font-size: 1.5rem; line-height: 1.25; margin: 0; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; margin: 0; overflow-wrap: anywhere; }
h3 { font-size: 1rem; margin: 1.25rem 0 .25rem; }
header p, .subject, figcaption, footer { color: var(--soft); }
header p, .subject { margin: .25rem 0 0; overflow-wrap: anywhere; }
section { background: var(--card); border: 1px solid var(--line); border-radius: .6rem; padding: 1.25rem;
  margin: 1.25rem 0; }
.verdict { margin: .9rem 0 0; padding: .5rem .8rem; border-left: .3rem solid currentColor; background: var(--page);
  border-radius: .2rem; overflow-wrap: anywhere; }
.verdict strong { margin-right: .6rem; }
.verdict span { color: var(--text); }
.verdict.fits, .verdict.fits strong span { color: var(--fits); }
.verdict.fits-tight, .verdict.fits-tight strong span { color: var(--tight); }
.verdict.no, .verdict.no strong span { color: var(--no); }
figure { margin: 1.25rem 0 .5rem; }
figcaption { font-size: .875rem; }
figcaption > span { margin-right: .5rem; }
.entry { white-space: nowrap; }
.excess { color: var(--no); font-weight: 600; }
.bar { display: block; overflow: visible; font-size: 13px; }
.bar text { fill: var(--text); font-variant-numeric: tabular-nums; }
.swatch { margin-right: .5rem; vertical-align: -.2rem; }
.segment { stroke: var(--card); stroke-width: 1.5; }
.s-free { stroke: var(--soft); stroke-width: 1; stroke-dasharray: 4 3; }
.over { stroke: var(--over); stroke-width: 2; }
.ink { stroke: var(--ink); stroke-width: 1.6; fill: none; }
.c-weights { fill: var(--weights); } .c-activation { fill: var(--activation); } .c-nonTorch { fill: var(--nontorch); }
.c-cudaGraphs { fill: var(--graphs); } .c-kvCache { fill: var(--cache); } .c-outside { fill: var(--outside); }
.c-uncharged { fill: var(--uncharged); } .c-free { fill: var(--free); } .c-over { fill: none; }
.edge { stroke: var(--text); stroke-width: 2; }
.edge.budget { stroke-dasharray: 5 3; }
.halo { stroke: var(--card); stroke-width: 5; }
.bracket { stroke: var(--text); stroke-width: 2; }
.tables { display: flex; flex-wrap: wrap; gap: 1rem 2.5rem; align-items: flex-start; }
.tables table { flex: 1 1 20rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
caption { text-align: left; font-weight: 600; padding: .75rem 0 .25rem; }
th, td { padding: .25rem .5rem; border-bottom: 1px solid var(--line); text-align: right; }
thead th { color: var(--soft); font-weight: 500; }
tbody th { text-align: left; font-weight: 400; padding-left: 0; }
.plain { margin-left: 1.5rem; }
.mid { font-weight: 600; }
ul { margin: .25rem 0 0; padding-left: 1.25rem; }
details { margin-top: .9rem; border-top: 1px solid var(--line); padding-top: .7rem; }
summary { cursor: pointer; font-weight: 600; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .3rem 1rem; margin: .6rem 0 0; }
dt { color: var(--soft); }
dd { margin: 0; overflow-wrap: anywhere; }
footer { font-size: .875rem; }
@media (max-width: 42rem) {
  body { padding: 1rem .6rem 2rem; }
  section { padding: .9rem; }
  .name { display: none; }
  .bar { height: 96px; }
  dl { display: block; }
  dt { margin-top: .5rem; }
  th, td { padding: .25rem .3rem; }
}
@media print { body { max-width: none; background: none; } section { break-inside: avoid; } }
"""
