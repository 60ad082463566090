// The pointer over a chart shows the values nearest to it. Places and texts are in the chart itself.
for (const svg of document.querySelectorAll('svg[data-chart]')) {
  const chart = JSON.parse(svg.dataset.chart);
  const holder = document.createElement('div');
  const tip = document.createElement('div');
  holder.className = 'holder';
  tip.className = 'tip';
  tip.hidden = true;
  svg.replaceWith(holder);
  holder.append(svg, tip);
  const pointer = svg.querySelector('.pointer');
  const hide = () => {
    tip.hidden = true;
    pointer.setAttribute('hidden', '');
    pointer.style.display = 'none';
  };
  hide();
  svg.addEventListener('pointerleave', hide);
  svg.addEventListener('pointermove', (event) => {
    const box = svg.getBoundingClientRect();
    const scale = box.width / svg.viewBox.baseVal.width;
    const at = (event.clientX - box.left) / scale;
    let nearest = 0;
    chart.x.forEach((x, number) => {
      if (Math.abs(x - at) < Math.abs(chart.x[nearest] - at)) nearest = number;
    });
    if (!chart.x.length) return;
    const x = chart.x[nearest];
    pointer.removeAttribute('hidden');
    pointer.style.display = '';
    for (const [name, value] of [['x1', x], ['x2', x], ['y1', chart.top], ['y2', chart.bottom]]) {
      pointer.setAttribute(name, value);
    }
    tip.replaceChildren();
    const head = document.createElement('b');
    head.textContent = chart.labels[nearest];
    tip.append(head);
    for (const line of chart.lines) {
      if (!line.texts[nearest]) continue;
      const row = document.createElement('div');
      const swatch = document.createElement('i');
      swatch.className = 'swatch ' + line.class;
      row.append(swatch, line.name + ' ' + line.texts[nearest]);
      tip.append(row);
    }
    tip.hidden = false;
    const left = x * scale + 12;
    const room = holder.clientWidth - tip.offsetWidth - 4;
    tip.style.left = (left > room ? Math.max(0, x * scale - tip.offsetWidth - 12) : left) + 'px';
    tip.style.top = chart.top * scale + 'px';
  });
}
