"""The style sheet of the report: light and dark, for wide screens, phones and paper."""

STYLE = """
:root { --paper:#fff; --ink:#1f2430; --soft:#5c6575; --rule:#e3e6eb; --card:#f7f8fa;
  --good:#007a59; --bad:#b23b2e; --warn:#fff4d9; --c0:#6d7583; --c1:#0068a3; --c2:#946200;
  --c3:#007a59; --c4:#b54a00; --c5:#934a72; --c6:#2871a4; --c7:#766800 }
@media screen and (prefers-color-scheme: dark) { :root { --paper:#171a21; --ink:#e8eaf0;
  --soft:#a0a8b7; --rule:#2c313c; --card:#1e222b; --good:#2cc295; --bad:#ff8b7b; --warn:#3a3118;
  --c0:#a4acba; --c1:#56b4e9; --c2:#f0b440; --c3:#2cc295; --c4:#ff8f4d; --c5:#e19ac2; --c6:#8cc7f0;
  --c7:#e0d04a } }
* { box-sizing:border-box }
body { margin:0; background:var(--paper); color:var(--ink); overflow-wrap:break-word;
  font:16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif }
main { max-width:1120px; margin:0 auto; padding:48px 24px 96px }
.eyebrow { color:var(--soft); font-size:.8rem; letter-spacing:.08em; text-transform:uppercase }
h1 { font-size:clamp(1.4rem, 3.4vw, 2.1rem); line-height:1.2; margin:.2em 0 .6em;
  letter-spacing:-.015em; text-wrap:balance }
h2 { font-size:1.25rem; margin:2.6em 0 .5em; letter-spacing:-.01em; break-after:avoid }
p { max-width:76ch; color:var(--soft); margin:.4em 0 1.2em }
code { font:.92em ui-monospace, "SF Mono", Menlo, Consolas, monospace; background:var(--card);
  padding:.1em .35em; border-radius:4px }
a { color:var(--c1) }
.said { list-style:none; padding:0; margin:0 0 1.6em; max-width:82ch }
.said li { padding:.7em 0 .7em 1em; border-left:3px solid var(--rule); margin:0 0 .5em }
.said b { display:block; font-size:.8rem; color:var(--soft); font-weight:600 }
.scroll { overflow-x:auto }
table { border-collapse:collapse; width:100%; font-variant-numeric:tabular-nums }
th, td { padding:.6em .8em; text-align:right; vertical-align:top;
  border-bottom:1px solid var(--rule) }
th { font-weight:600; white-space:nowrap }
thead th { border-bottom:2px solid var(--ink) }
th:first-child, td:first-child { text-align:left; padding-left:0; background:var(--paper);
  position:sticky; left:0 }
tbody th { font-weight:600 }
th small, td small { display:block; font-weight:400; color:var(--soft); font-size:.78rem;
  white-space:nowrap }
tbody th small { white-space:normal; max-width:30ch; line-height:1.35 }
td small.note { white-space:normal; max-width:24ch; margin-left:auto }
.v0 { color:var(--c0) } .v1 { color:var(--c1) } .v2 { color:var(--c2) } .v3 { color:var(--c3) }
.v4 { color:var(--c4) } .v5 { color:var(--c5) } .v6 { color:var(--c6) } .v7 { color:var(--c7) }
.good, .better { color:var(--good); font-weight:600 }
.bad, .worse { color:var(--bad); font-weight:600 }
.good::before { content:"\\2713\\00a0" } .bad::before { content:"\\2717\\00a0" }
.differs { font-weight:700 } .unclear { color:var(--soft) }
.tools { display:flex; flex-wrap:wrap; gap:.6em .9em; align-items:end; padding:.9em 1em;
  background:var(--card); border:1px solid var(--rule); border-radius:10px; font-size:.88rem }
.tools label { display:grid; gap:.15em; color:var(--soft) }
.tools label.inline { display:flex; align-items:center; gap:.35em }
.tools fieldset { border:0; padding:0; margin:0; display:flex; flex-wrap:wrap; gap:.3em .9em;
  width:100% }
input, select { min-height:2.5em }
input, select, button { font:inherit; color:var(--ink); background:var(--paper);
  border:1px solid var(--rule); border-radius:6px; padding:.4em .55em; max-width:100% }
input[type=search] { width:16em } input[type=number] { width:6em }
button { cursor:pointer } button:hover { border-color:var(--soft) }
:focus-visible { outline:2px solid var(--c1); outline-offset:1px }
.count { color:var(--soft); font-size:.88rem; margin:.9em 0 .4em }
.sample { border-top:1px solid var(--rule); padding:1em 0; break-inside:avoid }
.sample h3 { font-size:1rem; margin:0 0 .5em; line-height:1.4 }
.sample h3 small { font-weight:400; color:var(--soft); font-size:.8rem }
.answers { display:grid; gap:.8em 1.4em;
  grid-template-columns:repeat(auto-fit, minmax(min(210px, 100%), 1fr)) }
.answers > div { min-width:0 }
.answers b { font-size:.8rem } .answers p { color:var(--ink); margin:.1em 0 .3em;
  font-size:.95rem; line-height:1.45; white-space:pre-wrap }
.answers p.empty { color:var(--soft); font-style:italic }
.meter { display:flex; align-items:center; gap:.5em; color:var(--soft); font-size:.78rem }
.meter i { flex:1; height:4px; border-radius:2px; background:var(--rule); overflow:hidden }
.meter i b { display:block; height:100%; background:currentColor }
.target { color:var(--soft); font-size:.88rem; margin:.5em 0 0 }
figure { margin:0 0 2em; padding:16px; border:1px solid var(--rule); border-radius:10px;
  overflow-x:auto; break-inside:avoid }
figure img { display:block; max-width:100%; height:auto; margin:0 auto }
figcaption { color:var(--soft); font-size:.85rem; margin-top:.8em }
.warning { background:var(--warn); color:var(--ink); padding:.8em 1em; border-radius:8px }
details { margin-top:2em } summary { cursor:pointer; font-weight:600 }
@media (max-width:640px) { main { padding:24px 16px 64px } body { font-size:15px }
  th, td { padding:.5em .55em; font-size:.9rem }
  tbody th { white-space:normal; min-width:7.5em; max-width:9.5em }
  tbody th small { display:none } input[type=search] { width:100% }
  figure { padding:10px } figure img { max-width:none; width:660px }
  .tools label { flex:1 1 40% } .tools label.wide { flex-basis:100% } }
@media print { .tools, .count, .more, .noprint { display:none } main { max-width:none; padding:0 }
  body { font-size:10pt } h2 { margin-top:1.6em } .scroll, figure { overflow:visible }
  th, td { padding:.3em .45em } tbody th small { display:none } figure { border:0; padding:0 } }
"""
