// Buttons that lead to frames: clips where a prediction fails, regions asked about.

async function jump(button) {
  const { video: index, at, first, last, box, prediction, text } = button.dataset;
  if (Number(index) !== state.index) {
    byId("video").value = index;
    await start(Number(index));
  }
  play(false);
  state.region = box ? { first: Number(first), last: Number(last), box: box.split(",").map(Number) } : null;
  selectRange({ first: Number(first), last: Number(last), text, prediction });
  const panel = state.panels.find(({ map }) => map && !map.truth && map.name === prediction);
  if (panel && !panel.isShown) showPanel(panel, true);
  const inside = state.video.positions.findIndex((position) => position >= Number(at));
  show(at === first ? state.range.from : inside < 0 ? state.images.length - 1 : inside);
  state.cameFrom = button;
  byId("viewer").scrollIntoView({ block: "start" });
  panel?.figure.scrollIntoView({ block: "nearest" });
  byId("panels").focus({ preventScroll: true });
}

function goBack() {
  selectRange(null);
  state.region = null;
  draw();
  if (!state.cameFrom) return;
  state.cameFrom.scrollIntoView({ block: "center" });
  state.cameFrom.focus({ preventScroll: true });
}
