// The viewer: which video and frame are shown, how, and what moves them.

const MOST_PANELS = 8;
const LONGEST_PAUSE = 0.5; // seconds
const state = {
  index: -1, video: null, maps: [], images: [], panels: [], timeline: null,
  frame: 0, mode: "classes", measure: null, opacity: { classes: 0.55, marks: 1 }, only: new Set(), spot: null, region: null, range: null, isPlaying: false,
};

function draw() {
  const { video, maps, images, panels, frame } = state;
  for (const panel of panels) {
    if (!panel.isShown) continue;
    drawPanel(panel, video, maps, images, { ...state, isQuiet: state.isPlaying });
    outline(panel, video, frame, state.region);
    if (state.spot) pointAt(panel, video, frame, state.spot);
  }
  const scrubber = byId("scrubber"), number = `${count(video.positions[frame] + 1)} / ${count(video.total)}`;
  scrubber.value = frame;
  scrubber.setAttribute("aria-valuetext", frameName(video, frame));
  byId("position").textContent = video.frameNames ? `${number} · ${video.frameNames[frame]}` : number;
  state.timeline?.moveTo(frame);
}

function show(frame) {
  state.frame = Math.min(Math.max(frame, 0), state.images.length - 1);
  if (state.range && (state.frame < state.range.from || state.frame > state.range.to)) selectRange(null);
  draw();
}

const step = (by) => { play(false); show(state.frame + by); };

// Plays all frames round and round, or those of the range selected.
function play(isPlaying) {
  const { video, range } = state, first = range?.from ?? 0, last = range?.to ?? state.images.length - 1;
  state.isPlaying = isPlaying && last > first;
  const button = byId("play");
  button.classList.toggle("playing", state.isPlaying);
  button.setAttribute("aria-label", state.isPlaying ? "Pause" : "Play");
  byId("position").setAttribute("aria-live", state.isPlaying ? "off" : "polite");
  if (!state.isPlaying) { if (video) draw(); return; }
  // sampled videos keep their pace, as far as one has the patience: one picture stands for several frames
  const gap = () => Math.max(1, (video.positions[state.frame + 1] ?? 0) - video.positions[state.frame]), run = (state.run = {});
  const pause = () => 1000 * Math.max(1 / video.fps, Math.min(gap() / video.fps, LONGEST_PAUSE));
  let due = performance.now() + pause();
  const tick = (time) => {
    if (!state.isPlaying || state.run !== run) return;
    if (time >= due) { show(state.frame >= last ? first : state.frame + 1); due = Math.max(due + pause(), time); }
    requestAnimationFrame(tick);
  };
  requestAnimationFrame(tick);
}

// Frames of the video to look at alone: marked in the timeline, played round; null for all.
function selectRange(range) {
  const { positions } = state.video;
  state.range = null;
  if (range) {
    const from = positions.findIndex((position) => position >= range.first), to = positions.findLastIndex((position) => position <= range.last);
    const start = from < 0 ? positions.length - 1 : from;
    state.range = { ...range, from: start, to: Math.max(to, start) };
  }
  byId("range").hidden = !range;
  byId("range-text").textContent = range ? range.text : "";
  state.timeline?.mark(state.range && [state.range.from, state.range.to]);
  state.panels.forEach((panel) => panel.figure.classList.toggle("chosen", Boolean(range?.prediction) && panel.map?.name === range.prediction && !panel.map.truth));
}

// Makes every picture as large as the others again; whether one was not.
function shrink() {
  const wide = state.panels.filter(isEnlarged);
  wide.forEach((panel) => panel.enlarge(false));
  return wide.length > 0;
}

function onKey(event) {
  if (event.key === "Escape" && shrink()) { event.preventDefault(); return; }
  const control = event.target.closest("button, select, input, summary, a");
  if (event.ctrlKey || event.metaKey || event.altKey || (control && (!control.matches("button, summary") || event.key === " "))) return;
  const action = {
    ArrowLeft: () => step(-1), ArrowRight: () => step(1), PageUp: () => step(-10), PageDown: () => step(10),
    Home: () => step(-state.images.length), End: () => step(state.images.length), " ": () => play(!state.isPlaying),
  }[event.key];
  if (action) { event.preventDefault(); action(); }
}

async function open(index) {
  play(false);
  const video = data.videos[index], isStill = () => state.index === index;
  state.index = index;
  byId("viewer").setAttribute("aria-busy", "true");
  video.decoded ??= await decodeMaps(video);
  if (!isStill()) return;
  const maps = video.decoded, images = video.images.map((text) => Object.assign(new Image(), { src: `data:image/webp;base64,${text}` }));
  const events = {
    onPoint: (x, y) => { state.spot = [x, y]; state.panels.forEach((panel) => pointAt(panel, video, state.frame, state.spot)); },
    onLeave: () => { state.spot = null; state.panels.forEach(unpoint); },
    onGrow: () => layOut(byId("panels"), state.panels, video),
  };
  const panels = [null, ...maps].map((map) => buildPanel(video, map, events));
  // of many, the first and the last: what a chain of steps began with and came to
  panels.forEach((panel, i) => { panel.isShown = i < 3 || i >= panels.length - MOST_PANELS + 3; });
  Object.assign(state, { video, maps, images, panels, frame: 0, spot: null, region: null });
  state.only.clear();
  byId("scrubber").max = images.length - 1;
  for (const id of ["scrubber", "previous", "play", "next"]) byId(id).disabled = images.length < 2;
  buildControls();
  layOut(byId("panels"), panels, video);
  selectRange(null);
  draw();
  byId("viewer").removeAttribute("aria-busy");
  if (byId("heat")) await buildHeat(byId("heat"), video, maps, images, isStill);
}
