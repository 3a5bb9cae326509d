// What is chosen above the pictures: panels, overlay, classes, opacity, and the line below.

const PAINTED = {
  errors: "Pixels whose class is not that of the ground truth, where it has one. The ground truth shows its classes.",
  changes: "Pixels of another class than in the picture before.",
  flicker: "Pixels that change class although the optical flow says nothing moved there. What the flow cannot know (something comes into view, a cut) counts too: compare with the ground truth.",
};

function buildControls() {
  const { maps, panels, video } = state, columns = byId("columns");
  columns.querySelectorAll("button").forEach((button) => button.remove());
  columns.append(...panels.map((panel) => chip(panel.label, panel.isShown, (button) => showPanel(panel, !panel.isShown, button))));
  const offered = offeredMeasures(maps), modes = ["classes", ...offered];
  if (!modes.includes(state.mode)) state.mode = "classes";
  state.measure = offered.includes(state.measure) ? state.measure : offered.includes("flicker") ? "flicker" : offered[0];
  choices(byId("modes"), Object.fromEntries(modes.map((name) => [name, MEASURES[name]?.label ?? "Classes"])), state.mode, (mode) => {
    state.mode = mode;
    if (mode !== "classes") state.measure = mode;
    buildLegendOfMode();
    buildMeasures(offered);
    draw();
  });
  byId("legend").replaceChildren(...video.present.map((id) => make("li", {}, chip([swatch(data.classes[id].colour), data.classes[id].name], false, (button) => {
    if (!state.only.delete(id)) state.only.add(id);
    button.setAttribute("aria-pressed", String(state.only.has(id)));
    draw();
  }))));
  for (const id of ["modes", "opacity-field"]) byId(id).hidden = maps.length === 0;
  byId("about").textContent = aboutText();
  buildLegendOfMode();
  buildMeasures(offered);
}

function showPanel(panel, isShown, button = byId("columns").querySelectorAll("button")[state.panels.indexOf(panel)]) {
  panel.isShown = isShown;
  button.setAttribute("aria-pressed", String(isShown));
  layOut(byId("panels"), state.panels, state.video);
  draw();
}

function buildLegendOfMode() {
  const colour = PAINT[state.mode];
  byId("classes").hidden = Boolean(colour) || state.maps.length === 0;
  byId("painted").hidden = !colour;
  if (colour) byId("painted").replaceChildren(swatch(`rgb(${colour})`), PAINTED[state.mode]);
  setOpacity();
}

// Classes are seen through; marks cover single pixels and are not, but where the reader wants it.
function setOpacity() {
  const isMarks = state.mode !== "classes", opacity = state.opacity[isMarks ? "marks" : "classes"];
  byId("opacity").value = Math.round(100 * opacity);
  byId("opacity-value").textContent = percent(opacity, 0);
  byId("panels").classList.toggle("marks", isMarks);
  state.panels.forEach((panel) => {
    const isPlain = showsClasses(panel, state.mode);
    panel.canvas.style.opacity = state.opacity[isPlain ? "classes" : "marks"];
    panel.figure.classList.toggle("plain", isPlain);
  });
}

function buildMeasures(offered) {
  choices(byId("measures"), Object.fromEntries(offered.map((name) => [name, MEASURES[name].label])), state.measure, (name) => { state.measure = name; drawTimeline(); });
  byId("measures").hidden = offered.length < 2;
  drawTimeline();
}

function drawTimeline() {
  state.timeline = state.measure ? buildTimeline(byId("timeline"), state.video, state.maps, state.measure, (frame) => { play(false); show(frame); }) : null;
  if (!state.measure) byId("timeline").hidden = true;
  state.timeline?.mark(state.range && [state.range.from, state.range.to]);
  state.timeline?.moveTo(state.frame);
}

function aboutText() {
  const { video, maps } = state, size = (width, height) => `${width} × ${height}`;
  const sentences = [`Pictures are ${size(video.width, video.height)}` + (video.width < video.fullWidth ? `, scaled down from ${size(video.fullWidth, video.fullHeight)}.` : ".")];
  if (video.positions.length < video.total) sentences.push(`${count(video.positions.length)} of ${count(video.total)} frames are in this page, evenly spaced${video.kept ? " beside those of the worst clips" : ""}.`);
  if (maps.length) sentences.push("Shares under the pictures are of the pixels shown.", "Choose classes to see them alone; point at a picture to name what is there.");
  return sentences.join(" ");
}
