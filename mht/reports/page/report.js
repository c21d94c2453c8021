(() => {
  const data = JSON.parse(document.getElementById('data').textContent);
  const box = document.getElementById('samples'), tools = document.getElementById('tools');
  const $ = id => document.getElementById(id), PAGE = 12;
  if (!data.rows.length) return;
  const make = (tag, text, name) => {
    const made = document.createElement(tag);
    if (text !== undefined) made.textContent = text;
    if (name) made.className = name;
    return made;
  };
  const options = (select, names, chosen) => names.forEach((name, i) => {
    const option = make('option', name);
    option.value = i;
    option.selected = i === chosen;
    select.append(option);
  });
  const last = data.variants.length - 1;
  options($('metric'), data.metrics.map(m => m.label), 0);
  options($('a'), data.variants.map(v => v.name), last);
  options($('b'), data.variants.map(v => v.name), Math.max(0, data.baseline));
  const shown = data.variants.map((variant, i) => {
    const label = make('label', undefined, 'inline v' + variant.slot), check = make('input');
    check.type = 'checkbox';
    check.checked = true;
    label.append(check, variant.name);
    $('variants').append(label);
    return check;
  });
  let limit = PAGE;
  const score = (row, variant) => data.metrics.length ? row.s[variant][+$('metric').value] : null;
  const gap = row => {
    const a = score(row, +$('a').value), b = score(row, +$('b').value);
    return a === null || b === null ? null : a - b;
  };
  const figure = value => value === null ? '-' : value.toFixed(2);

  const answer = (row, i) => {
    const cell = make('div'), metric = data.metrics[+$('metric').value];
    cell.append(make('b', data.variants[i].name, 'v' + data.variants[i].slot));
    const said = row.r[i];
    cell.append(make('p', said || '(empty)', said ? '' : 'empty'));
    const value = score(row, i);
    if (value !== null) {
      const line = make('div', undefined, 'meter');
      if (metric.low !== null && metric.high !== null) {
        const rail = make('i', undefined, 'v' + data.variants[i].slot), bar = make('b');
        bar.style.width = 100 * (value - metric.low) / (metric.high - metric.low) + '%';
        rail.append(bar);
        line.append(rail);
      }
      line.append(metric.label + ' ' + figure(value));
      cell.append(line);
    }
    return cell;
  };
  const sample = row => {
    const made = make('article', undefined, 'sample'), head = make('h3', row.p + ' ');
    if (gap(row) !== null) head.append(make('small', 'difference ' + figure(gap(row))));
    const answers = make('div', undefined, 'answers');
    data.variants.forEach((_, i) => { if (shown[i].checked) answers.append(answer(row, i)); });
    made.append(head, answers);
    if (row.t) made.append(make('p', 'target: ' + row.t, 'target'));
    return made;
  };
  const draw = () => {
    const wanted = $('text').value.toLowerCase(), least = parseFloat($('least').value);
    const side = $('side').value, order = $('order').value, up = $('way').value === 'up' ? 1 : -1;
    const key = order === 'gap' ? gap : order === 'score' ? row => score(row, +$('a').value) : null;
    let rows = data.rows.filter(row => {
      const texts = [row.p, row.t, ...row.r.filter((_, i) => shown[i].checked)];
      if (wanted && !texts.some(text => text.toLowerCase().includes(wanted))) return false;
      const d = gap(row);
      if (side === 'above' && !(d > 0) || side === 'below' && !(d < 0)) return false;
      return isNaN(least) || (d !== null && Math.abs(d) >= least);
    });
    if (key) rows = rows.map(row => [key(row), row]).sort((x, y) =>
      (x[0] === null) - (y[0] === null) || up * (x[0] - y[0])).map(pair => pair[1]);
    box.replaceChildren(...rows.slice(0, limit).map(sample));
    $('count').textContent = rows.length + ' of ' + data.rows.length + ' prompts';
    $('more').hidden = rows.length <= limit;
  };
  tools.addEventListener('input', () => { limit = PAGE; draw(); });
  $('more').addEventListener('click', () => { limit += 4 * PAGE; draw(); });
  tools.hidden = false;
  draw();
})();
