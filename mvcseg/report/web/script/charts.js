// What all charts share: uPlot in the page's colours, drawn anew when these or the width change.

const charts = new Map(); // the box a chart lies in: the chart
const styleOf = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

function chartAxis(values, size) {
  return {
    stroke: () => styleOf("--quiet"),
    grid: { stroke: () => styleOf("--line"), width: 1 },
    ticks: { show: false },
    font: "12px system-ui, sans-serif",
    gap: 6,
    size,
    values,
  };
}

function drawChart(box, options, values) {
  charts.get(box)?.destroy();
  const chart = new uPlot({ width: Math.max(box.clientWidth, 120), legend: { show: false }, padding: [8, 18, 0, 0], ...options }, values, box);
  charts.set(box, chart);
  widths.observe(box);
  return chart;
}

function dropChart(box) {
  charts.get(box)?.destroy();
  charts.delete(box);
  widths.unobserve(box);
}

const widths = new ResizeObserver((entries) => {
  for (const { target, contentRect } of entries) {
    const chart = charts.get(target);
    if (chart && contentRect.width >= 120 && Math.abs(chart.width - contentRect.width) >= 1) chart.setSize({ width: contentRect.width, height: chart.height });
  }
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => charts.forEach((chart) => chart.redraw(false, true)));
