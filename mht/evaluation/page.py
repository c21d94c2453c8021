"""The HTML page of the benchmark: a jinja2 template with its style sheet, light and dark."""

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>MHT benchmark</title>
<style>
:root { --paper:#fff; --ink:#1f2430; --soft:#5c6575; --rule:#e3e6eb; --card:#f7f8fa;
  --base:#6d7583; --sft_only:#0068a3; --ppo_only:#a86f00; --hybrid:#007a59; --good:#007a59;
  --bad:#b23b2e; --warn:#fff4d9; }
@media (prefers-color-scheme: dark) { :root { --paper:#171a21; --ink:#e8eaf0; --soft:#a0a8b7;
  --rule:#2c313c; --card:#1e222b; --base:#a4acba; --sft_only:#56b4e9; --ppo_only:#f0b440;
  --hybrid:#2cc295; --good:#2cc295; --bad:#ff8b7b; --warn:#3a3118; } }
* { box-sizing:border-box }
body { margin:0; background:var(--paper); color:var(--ink);
  font:16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif }
main { max-width:1120px; margin:0 auto; padding:48px 24px 96px }
.eyebrow { color:var(--soft); font-size:.8rem; letter-spacing:.08em; text-transform:uppercase }
h1 { font-size:clamp(1.5rem, 3.4vw, 2.2rem); line-height:1.2; margin:.2em 0 .5em;
  letter-spacing:-.015em; text-wrap:balance }
h2 { font-size:1.25rem; margin:3em 0 .6em; letter-spacing:-.01em }
p { max-width:74ch; color:var(--soft); margin:.4em 0 1.2em }
.scroll { overflow-x:auto }
table { border-collapse:collapse; width:100%; font-variant-numeric:tabular-nums }
th, td { padding:.6em .8em; text-align:right; vertical-align:top;
  border-bottom:1px solid var(--rule) }
th { font-weight:600; white-space:nowrap }
thead th { border-bottom:2px solid var(--ink) }
th:first-child, td:first-child { text-align:left; padding-left:0 }
tbody th { font-weight:600 }
tbody th small, td small { display:block; font-weight:400; color:var(--soft); font-size:.78rem;
  white-space:nowrap }
tbody th small { white-space:normal; max-width:30ch; line-height:1.35 }
.base { color:var(--base) } .sft_only { color:var(--sft_only) }
.ppo_only { color:var(--ppo_only) } .hybrid { color:var(--hybrid) }
.better { color:var(--good); font-weight:700 } .worse { color:var(--bad); font-weight:700 }
.differs { font-weight:700 } .unclear { color:var(--soft) }
.samples { table-layout:fixed; min-width:900px; font-size:.92rem }
.samples td, .samples th { text-align:left; line-height:1.45 }
.samples tbody th { white-space:normal }
.meter { display:flex; align-items:center; gap:.5em; margin-top:.45em; color:var(--soft);
  font-size:.78rem }
.meter i { flex:1; height:4px; border-radius:2px; background:var(--rule); overflow:hidden }
.meter b { display:block; height:100%; background:currentColor }
figure { margin:0 0 2em; padding:16px; border:1px solid var(--rule); border-radius:10px }
figure img { display:block; max-width:100%; height:auto; margin:0 auto }
figcaption { color:var(--soft); font-size:.85rem; margin-top:.8em }
.warning { background:var(--warn); color:var(--ink); padding:.8em 1em; border-radius:8px }
details { margin-top:2em } summary { cursor:pointer; font-weight:600 }
</style>
</head>
<body>
<main>
<div class="eyebrow">MHT benchmark</div>
<h1>{{ headline }}</h1>
<p>{{ reading }}</p>
{% if warning %}
<p class="warning">{{ warning }}</p>
{% endif %}

{% macro cell(c) %}<td>{{ c.mean }}{% if c.low %}<small>{{ c.low }} to {{ c.high }}</small>\
{% endif %}</td>{% endmacro %}
<div class="scroll"><table>
<thead><tr><th></th>
{% for v in variants %}<th class="{{ v.name }}">{{ v.name }}</th>{% endfor %}
<th>hybrid &minus; {{ baseline }}</th><th>verdict</th></tr></thead>
<tbody>
<tr><th>Optimiser steps</th>{% for v in variants %}<td>{{ v.steps }}</td>{% endfor %}
<td></td><td></td></tr>
{% for row in rows %}
<tr><th>{{ row.label }} {{ row.arrow }}<small>{{ row.meaning }}</small></th>
{% for c in row.cells %}{{ cell(c) }}{% endfor %}
<td>{{ row.difference.value }}<small>{{ row.difference.interval }}</small></td>
<td class="{{ row.verdict if row.significant else 'unclear' }}">{{ row.verdict }}\
<small>{{ row.difference.p }}</small></td></tr>
{% endfor %}
</tbody></table></div>

<h2>The same prompts, all variants</h2>
<p>{{ choice }}</p>
<div class="scroll"><table class="samples">
<thead><tr><th>prompt</th>
{% for v in variants %}<th class="{{ v.name }}">{{ v.name }}</th>{% endfor %}</tr></thead>
<tbody>
{% for row in samples %}
<tr><th>{{ row.prompt }}</th>
{% for c in row.cells %}<td>{{ c.response }}{% if c.score is not none %}
<div class="meter"><i class="{{ c.variant }}"><b style="width:{{ '%.0f' % (100 * c.score) }}%">\
</b></i>{{ '%.2f' % c.score }}</div>{% endif %}</td>
{% endfor %}</tr>
{% endfor %}
</tbody></table></div>

{% for f in figures %}
<h2>{{ f.title }}</h2>
<figure><picture>
<source media="(prefers-color-scheme: dark)" srcset="data:image/png;base64,{{ f.dark }}">
<img alt="{{ f.title }}" width="{{ f.width }}" src="data:image/png;base64,{{ f.light }}"></picture>
<figcaption>{{ f.caption }}</figcaption></figure>
{% endfor %}

{% if others %}
<details><summary>All other metrics ({{ others | length }})</summary>
<div class="scroll"><table>
<thead><tr><th></th>
{% for v in variants %}<th class="{{ v.name }}">{{ v.name }}</th>{% endfor %}</tr></thead>
<tbody>
{% for row in others %}
<tr><th>{{ row.label }} {{ row.arrow }}<small>{{ row.meaning }}</small></th>
{% for c in row.cells %}{{ cell(c) }}{% endfor %}</tr>
{% endfor %}
</tbody></table></div></details>
{% endif %}
</main>
</body>
</html>
"""
