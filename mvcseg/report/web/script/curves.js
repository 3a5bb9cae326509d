// Training curves: the values, a smooth line over many of them or dots for few.

function buildCurves() {
  for (const box of document.querySelectorAll(".curve .chart")) {
    const { name, steps, values, smooth, low, high, is_log: isLog } = data.curves[Number(box.dataset.curve)];
    if (!steps.length) continue;
    const said = box.closest(".curve").querySelector(".value"), last = said.textContent;
    const colour = () => styleOf("--accent"), faint = () => styleOf("--faint");
    const room = isLog ? 1 : 0.05 * (high - low) || 0.5 * Math.abs(high) || 1;
    const line = { label: name, width: 1, stroke: faint, points: { show: false } };
    const lines = smooth.length
      ? [line, { label: `${name}, smooth`, width: 2, stroke: colour, points: { show: false } }]
      : [{ ...line, width: 2, stroke: colour, points: { show: true, size: 7, width: 0, fill: colour } }];
    const ends = isLog ? [low / 1.1, Math.max(high * 1.1, low * 1.3)] : [low - room, high + room];
    drawChart(box, {
      height: 170,
      scales: { x: { time: false, range: steps.length > 1 ? [steps[0], steps.at(-1)] : [steps[0] - 1, steps[0] + 1] }, y: { distr: isLog ? 3 : 1, range: ends } },
      axes: [chartAxis((_, ticks) => ticks.map((tick) => Number.isInteger(tick) ? count(tick) : ""), 26), { ...chartAxis((_, ticks) => ticks.map(shortNumber), 54), space: 28 }],
      series: [{}, ...lines],
      cursor: { y: false, drag: { x: false, y: false }, points: { size: 8 } },
      hooks: { setCursor: [(chart) => { said.textContent = chart.cursor.left >= 0 && chart.cursor.idx !== null ? `${shortNumber(values[chart.cursor.idx])} at ${count(Math.round(steps[chart.cursor.idx]))}` : last; }] },
    }, [steps, values, ...(smooth.length ? [smooth] : [])]);
  }
}

// uPlot leaves out labels of a logarithmic axis by null
function shortNumber(value) {
  if (value === null) return "";
  const size = Math.abs(value);
  return size !== 0 && (size < 1e-3 || size >= 1e5) ? value.toExponential(1).replace("e+", "e").replace(".0e", "e") : String(+value.toPrecision(4));
}
