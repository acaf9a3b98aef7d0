"""The style sheet of an evaluation's report.html: light and dark, wide and narrow."""

STYLE = """
:root { color-scheme: light dark; --paper: #fbfaf7; --card: #fff; --ink: #1d1c1a; --soft: #6b6862; --line: #e4e0d8;
  --accent: #1f6f6b; --band: #9fcfca; --doubt: #a8480b; --shadow: 0 1px 2px #0000000f, 0 4px 14px #0000000a; }
@media (prefers-color-scheme: dark) { :root { --paper: #161614; --card: #201f1d; --ink: #ece9e2; --soft: #a19d95;
  --line: #34322e; --accent: #67c1b8; --band: #2f5f5b; --doubt: #f0a060; --shadow: none; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, "Segoe UI", Roboto, sans-serif; }
header, main { max-width: 78rem; margin: 0 auto; padding: 0 1.5rem; }
header { padding-top: 2.5rem; }
h1 { font-size: 2.1rem; line-height: 1.2; letter-spacing: -.02em; margin: 0 0 1rem; }
h2 { font-size: 1.35rem; letter-spacing: -.01em; margin: 0 0 .6rem; }
h3 { font-size: 1.1rem; line-height: 1.35; margin: 0 0 .5rem; }
h4 { font-size: .72rem; letter-spacing: .06em; text-transform: uppercase; color: var(--soft); margin: .8rem 0 .2rem; }
section { margin: 0 0 2.5rem; scroll-margin-top: 1rem; }
.facts { display: flex; flex-wrap: wrap; gap: .4rem 2rem; margin: 0; }
.facts dt { font-size: .72rem; letter-spacing: .06em; text-transform: uppercase; color: var(--soft); }
.facts dd { margin: 0; }
nav { display: flex; gap: .5rem; margin: 1.4rem 0 2rem; padding-top: 1.2rem; border-top: 1px solid var(--line); }
nav a { color: var(--accent); text-decoration: none; border: 1px solid var(--line); border-radius: 99px;
  padding: .15rem .9rem; background: var(--card); }
nav a:hover { border-color: var(--accent); }
.summary { display: grid; grid-template-columns: 3fr 2fr; gap: 1rem 4rem; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th { text-align: left; font-weight: 500; }
th, td { padding: .32rem .8rem .32rem 0; border-bottom: 1px solid var(--line); }
.scores td b { font-size: 1.05rem; } .range { color: var(--soft); white-space: nowrap; }
.scores td:last-child { width: 45%; padding-right: 0; }
.track { position: relative; height: .7rem; border-radius: 3px; background: var(--line); }
.track i { position: absolute; top: 0; bottom: 0; }
.fill { left: 0; border-radius: 3px 0 0 3px; background: var(--accent); opacity: .35; }
.band { background: var(--accent); opacity: .45; } .dot { width: 3px; margin-left: -1.5px; background: var(--accent); }
.statistics td, .statistics th:not(:first-child) { text-align: right; padding: .32rem 0 .32rem .8rem; }
.statistics tr:first-child th { color: var(--soft); font-size: .85rem; }
.statistics td:last-child { color: var(--soft); }
.small, .lead, .note { color: var(--soft); font-size: .87rem; margin: .6rem 0 0; overflow-wrap: anywhere; }
.lead { font-size: 1rem; margin: 0 0 1rem; }
.note { border-left: 3px solid var(--band); padding-left: .7rem; }
.histogram { width: 100%; height: auto; display: block; font-size: 12px; fill: var(--soft); }
.histogram path { stroke: var(--line); fill: none; }
.bars { fill: var(--band); } .bars rect:hover { fill: var(--accent); }
.marks line { stroke: var(--accent); stroke-dasharray: 3 3; } .marks text { fill: var(--ink); }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(33rem, 1fr)); gap: 1rem; }
article { display: flex; gap: 1.2rem; background: var(--card); border: 1px solid var(--line); border-radius: 12px;
  padding: 1rem; box-shadow: var(--shadow); }
article > div { min-width: 0; flex: 1; } article > .side { flex: none; width: 13rem; }
article img { width: 100%; height: auto; border-radius: 8px; display: block; }
article ul { margin: 0; padding: 0; list-style: none; font-size: .9rem; line-height: 1.4; }
article li { margin: 0 0 .2rem; } .others { color: var(--soft); }
mark { background: none; color: var(--doubt); }
article dl { display: grid; grid-template-columns: 1fr auto; margin: .7rem 0 0; font-size: .87rem; }
article dt { color: var(--soft); } article dd { margin: 0; font-weight: 600; font-variant-numeric: tabular-nums; }
article dd, article dt { border-bottom: 1px solid var(--line); padding: .1rem 0; }
.name { color: var(--soft); font-size: .72rem; margin: .5rem 0 0; overflow-wrap: anywhere; }
@media (max-width: 60rem) { .summary { grid-template-columns: 1fr; } }
@media (max-width: 38rem) { .cards { grid-template-columns: 1fr; } article { flex-direction: column; }
  article > .side { width: 100%; } header, main { padding-inline: 1rem; } .scores td:last-child { display: none; } }
@media print { article { break-inside: avoid; box-shadow: none; } nav { display: none; } }
"""
