// One line for each prediction over the frames of a video; the place shown moves with the scrubber, a click moves both.

const TIMELINE_HEIGHT = 180;

function buildTimeline(box, video, maps, name, onSeek) {
  const measure = MEASURES[name];
  const lines = maps.map((map) => ({ map, shares: sharesOf(video, maps, map, name) })).filter(({ shares }) => shares.some((share) => share !== null));
  if (!lines.length || video.positions.length < 2) { dropChart(box.querySelector(".chart")); box.hidden = true; return null; }
  box.hidden = false;
  const place = box.querySelector(".chart"), frames = video.positions.map((position) => position + 1);
  const most = Math.max(...lines.flatMap(({ shares }) => shares.map((share) => share ?? 0)));
  const now = make("div", { className: "now" }), band = make("div", { className: "band", hidden: true });
  let chart = null, shown = 0, range = null;
  const left = (frame) => chart.valToPos(frames[frame], "x");
  const arrange = () => {
    if (!chart) return;
    now.style.transform = `translateX(${left(shown)}px)`;
    band.hidden = !range;
    if (range) Object.assign(band.style, { left: `${left(range[0])}px`, width: `${Math.max(left(range[1]) - left(range[0]), 2)}px` });
  };
  const legend = buildLegend(box.querySelector(".lines"), lines, (line, isShown) => chart.setSeries(line + 1, { show: isShown }));
  chart = drawChart(place, {
    height: TIMELINE_HEIGHT,
    scales: { x: { time: false, range: [frames[0], frames.at(-1)] }, y: { range: [0, most > 0 ? 1.06 * most : 0.01] } },
    axes: [chartAxis((_, ticks) => ticks.map((tick) => Number.isInteger(tick) ? count(tick) : ""), 26), chartAxis((_, ticks) => ticks.map((tick) => `${+(100 * tick).toFixed(2)}%`), 52)],
    series: [{}, ...lines.map(({ map }) => ({
      label: map.name, stroke: () => styleOf(lineColour(map.key)), width: map.truth ? 1.5 : 2, dash: lineDash(map.key), points: { show: false }, spanGaps: false,
    }))],
    cursor: { y: false, drag: { x: false, y: false }, points: { size: 8 } },
    hooks: {
      setSize: [arrange],
      setCursor: [(each) => legend.say(each.cursor.left >= 0 ? each.cursor.idx : shown)],
    },
  }, [frames, ...lines.map(({ shares }) => shares)]);
  chart.under.append(band);
  chart.over.append(now);
  const seek = (event) => {
    const area = chart.over.getBoundingClientRect();
    onSeek(chart.posToIdx(Math.min(Math.max(event.clientX - area.left, 0), area.width)));
  };
  chart.over.addEventListener("pointerdown", (event) => { if (event.isPrimary) { chart.over.setPointerCapture(event.pointerId); seek(event); } });
  chart.over.addEventListener("pointermove", (event) => { if (chart.over.hasPointerCapture(event.pointerId)) seek(event); });
  box.querySelector(".title").textContent = measure.title;
  describeTimeline(box, place, lines, frames, measure);
  return {
    moveTo(frame) { shown = frame; arrange(); legend.say(frame); },
    mark(frames) { range = frames; arrange(); },
  };
}

function buildLegend(list, lines, onToggle) {
  const values = lines.map(() => make("span", { className: "value" }));
  list.replaceChildren(...lines.map(({ map, shares }, line) => make("li", {}, chip(
    [lineMark(map.key), make("span", { className: "name", textContent: map.name }), make("span", { className: "mean", textContent: `mean ${percent(mean(shares))}` }), values[line]], true,
    (button) => {
      const isShown = button.getAttribute("aria-pressed") !== "true";
      button.setAttribute("aria-pressed", String(isShown));
      onToggle(line, isShown);
    }))));
  return { say(frame) { lines.forEach(({ shares }, line) => { values[line].textContent = shares[frame] == null ? "now –" : `now ${percent(shares[frame])}`; }); } };
}

// The chart in words, and its numbers as a table for those who ask.
function describeTimeline(box, place, lines, frames, measure) {
  const words = lines.map(({ map, shares }) => {
    const most = Math.max(...shares.map((share) => share ?? 0));
    return `${map.name} ${percent(mean(shares))} on average, at most ${percent(most)} in frame ${count(frames[shares.indexOf(most)] ?? frames[0])}`;
  });
  place.setAttribute("aria-label", `${measure.title}. ${words.join("; ")}.`);
  const details = box.querySelector("details"), table = box.querySelector("table");
  const fill = () => {
    if (!details.open) return;
    const head = make("tr", {}, ...["Frame", ...lines.map(({ map }) => map.name)].map((text) => make("th", { scope: "col", textContent: text })));
    const rows = frames.map((frame, i) => make("tr", {}, make("th", { scope: "row", textContent: count(frame) }),
      ...lines.map(({ shares }) => make("td", { textContent: shares[i] === null ? "–" : percent(shares[i], 2) }))));
    table.replaceChildren(make("thead", {}, head), make("tbody", {}, ...rows));
  };
  table.replaceChildren();
  details.ontoggle = fill;
  fill();
}
