"""The HTML page of a report: a jinja2 template that needs no other file and no network."""

from mht.reports.page.script import SCRIPT
from mht.reports.page.style import STYLE

BODY = """
<main>
<div class="eyebrow">{{ eyebrow }}</div>
<h1>{{ headline }}</h1>
{% if sentences %}
<ul class="said">
{% for title, text in sentences %}<li><b>{{ title }}</b>{{ text }}</li>{% endfor %}
</ul>
{% endif %}
{% if warning %}
<p class="warning">{{ warning }}</p>
{% endif %}

{% macro cell(c) %}<td>{{ c.mean }}\
{% if c.low %}<small>{{ c.low }}{% if c.high %} to {{ c.high }}{% endif %}</small>\
{% endif %}</td>{% endmacro %}
{% macro names(list) %}{% for v in list %}<th class="v{{ v.slot }}">{{ v.name }}</th>\
{% endfor %}{% endmacro %}
<h2>Every variant on the same prompts</h2>
<p>{{ reading }}</p>
<div class="scroll"><table>
<thead><tr><th></th>{{ names(variants) }}{% for h in extra %}<th>{{ h }}</th>\
{% endfor %}</tr></thead>
<tbody>
{% for row in rows %}
<tr><th>{{ row.label }} {{ row.arrow }}<small>{{ row.meaning }}</small></th>
{% for c in row.cells %}{{ cell(c) }}{% endfor %}
{% for x in row.extra %}<td class="{{ x.state }}">{{ x.text }}<small>{{ x.small }}</small></td>\
{% endfor %}</tr>
{% endfor %}
</tbody></table></div>

{% if guard %}
<h2>Guard against gaming</h2>
<p>Each variant against {{ guard.baseline }}. A gain in the trained reward is sound when judges that
nobody was trained on rise too and no figure leaves its bound (<code>benchmark.guard</code>);
otherwise the report calls it gaming. Changes in percent are relative to {{ guard.baseline }}.</p>
<div class="scroll"><table>
<thead><tr><th></th><th>bound</th>{{ names(guard.variants) }}</tr></thead>
<tbody>
{% for row in guard.rows %}
<tr><th>{{ row.label }}</th><td>{{ row.bound }}</td>
{% for c in row.cells %}<td class="{{ c.state }}">{{ c.text }}{% if c.note %}\
<small class="note">{{ c.note }}</small>{% endif %}</td>{% endfor %}</tr>
{% endfor %}
</tbody></table></div>
{% endif %}

{% if comparisons %}
<h2>Who wins on what</h2>
<div class="scroll"><table>
<thead><tr>{% for h in comparisons[0] %}<th>{{ h }}</th>{% endfor %}</tr></thead>
<tbody>
{% for line in comparisons[1:] %}
<tr>{% for text in line %}<td>{{ text }}</td>{% endfor %}</tr>
{% endfor %}
</tbody></table></div>
{% endif %}

{% for f in figures %}
<h2>{{ f.title }}</h2>
<figure><picture>
<source media="screen and (prefers-color-scheme: dark)" \
srcset="data:image/png;base64,{{ f.dark }}">
<img alt="{{ f.title }}" width="{{ f.width }}" src="data:image/png;base64,{{ f.light }}"></picture>
<figcaption>{{ f.caption }}</figcaption></figure>
{% endfor %}

<h2>The same prompts, all variants</h2>
<p>Every prompt can be found here, in the order of the test set; none is picked.
{{ samples_note }}</p>
<noscript><p>{{ choice }}</p></noscript>
<div class="tools" id="tools" hidden>
<label class="wide">text <input type="search" id="text" placeholder="prompt or response"></label>
<label>score <select id="metric"></select></label>
<label>variant A <select id="a"></select></label>
<label>variant B <select id="b"></select></label>
<label>show <select id="side"><option value="">all</option><option value="above">A above B</option>
<option value="below">A below B</option></select></label>
<label>|A &minus; B| at least <input type="number" id="least" min="0" step="any"></label>
<label>sort by <select id="order"><option value="">test set</option>
<option value="gap">A &minus; B</option><option value="score">score of A</option></select></label>
<label>order <select id="way"><option value="down">highest first</option>
<option value="up">lowest first</option></select></label>
<fieldset id="variants"></fieldset>
</div>
<p class="count" id="count" aria-live="polite"></p>
<div id="samples">
{% for row in samples %}
<article class="sample"><h3>{{ row.prompt }}</h3><div class="answers">
{% for c in row.cells %}<div><b class="v{{ c.slot }}">{{ c.variant }}</b>\
<p>{{ c.response }}</p>{% if c.score is not none %}
<div class="meter">{{ c.label }} {{ '%.2f' % c.score }}</div>{% endif %}</div>
{% endfor %}</div></article>
{% endfor %}
</div>
<button class="more" id="more" hidden>Show more</button>

{% if others %}
<details><summary>All other metrics ({{ others | length }})</summary>
<div class="scroll"><table>
<thead><tr><th></th>{{ names(variants) }}</tr></thead>
<tbody>
{% for row in others %}
<tr><th>{{ row.label }} {{ row.arrow }}<small>{{ row.meaning }}</small></th>
{% for c in row.cells %}{{ cell(c) }}{% endfor %}</tr>
{% endfor %}
</tbody></table></div></details>
{% endif %}

{% if runs %}
<h2>The runs behind it</h2>
<p>Every stage left a run with its settings, curves and artifacts in MLflow: <code>make ui</code>,
open <code>127.0.0.1:5000</code>, and type a filter into the search box of
the experiment. <code>mht lineage</code> prints which run made what lies in the workspace.</p>
<div class="scroll"><table>
<thead><tr><th>made</th><th>search filter</th></tr></thead>
<tbody>
{% for what, stage in runs %}
<tr><td>{{ what }}</td><td><code>tags.`mht.pipeline.stage` = '{{ stage }}'</code></td></tr>
{% endfor %}
</tbody></table></div>
{% endif %}
</main>
"""

PAGE = (
    """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{{ eyebrow }}</title>
<style>"""
    + STYLE
    + """</style>
</head>
<body>"""
    + BODY
    + """<script type="application/json" id="data">{{ data|safe }}</script>
<script>"""
    + SCRIPT
    + """</script>
</body>
</html>
"""
)
