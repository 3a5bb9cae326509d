// Panels: a frame with one label map over it, all of them at the same place in the video.

const ENLARGE = "M9.5 2.5h4v4M6.5 13.5h-4v-4M13.5 2.5l-5 5M2.5 13.5l5-5";

function icon(path) {
  const space = "http://www.w3.org/2000/svg", svg = document.createElementNS(space, "svg"), line = document.createElementNS(space, "path");
  svg.setAttribute("viewBox", "0 0 16 16");
  svg.setAttribute("aria-hidden", "true");
  line.setAttribute("d", path);
  svg.append(line);
  return svg;
}

function buildPanel(video, map, { onPoint, onLeave, onGrow }) {
  const label = map ? map.name : "Frame", stage = make("div", { className: "stage", role: "img" });
  stage.style.aspectRatio = `${video.width} / ${video.height}`;
  const sized = (className) => make("canvas", { className, width: video.width, height: video.height });
  const panel = {
    label, map, stage, image: sized("image"), canvas: sized("labels"), isShown: true,
    spot: make("span", { className: "spot", hidden: true }), region: make("span", { className: "region", hidden: true }),
    stats: make("span", { className: "stats" }), pointed: make("span", { className: "pointed", hidden: true }),
  };
  stage.append(panel.image, ...(map ? [panel.canvas] : []), panel.region, panel.spot);
  const move = (event) => {
    const box = stage.getBoundingClientRect(), within = (at) => Math.min(Math.max(at, 0), 0.9999);
    onPoint(within((event.clientX - box.left) / box.width), within((event.clientY - box.top) / box.height));
  };
  stage.addEventListener("pointermove", move);
  stage.addEventListener("pointerdown", move);
  stage.addEventListener("pointerleave", (event) => { if (event.pointerType === "mouse") onLeave(); });
  const grow = make("button", { type: "button", className: "grow", "aria-label": `Enlarge ${label}`, "aria-pressed": "false", title: "Enlarge" }, icon(ENLARGE));
  const name = make("span", { className: "name" }, ...(map ? [lineMark(map.key)] : []), label);
  panel.figure = make("figure", { className: "panel" }, make("div", { className: "frame" }, stage, grow), make("figcaption", {}, name, panel.stats, panel.pointed));
  panel.enlarge = (isWide) => {
    panel.figure.classList.toggle("wide", isWide);
    grow.setAttribute("aria-pressed", String(isWide));
    onGrow();
    panel.figure.scrollIntoView({ block: "nearest" });
  };
  grow.addEventListener("click", () => panel.enlarge(!isEnlarged(panel)));
  return panel;
}

const isEnlarged = (panel) => panel.figure.classList.contains("wide");

// Where errors are shown, the ground truth shows what would be right.
const showsClasses = (panel, mode) => mode === "classes" || (mode === "errors" && Boolean(panel.map?.truth));

// Paints a panel at a frame; the picture may still be on its way.
function drawPanel(panel, video, maps, images, { frame, mode, only, isQuiet }) {
  const image = images[frame], context = panel.image.getContext("2d");
  const put = () => { if (panel.frame === frame) context.drawImage(image, 0, 0, video.width, video.height); };
  panel.frame = frame;
  if (image.complete && image.naturalWidth) put(); else image.addEventListener("load", put, { once: true });
  panel.stats.textContent = "";
  if (panel.map) {
    const painted = showsClasses(panel, mode) ? "classes" : mode;
    panel.canvas.getContext("2d").putImageData(paint(video, maps, panel.map, frame, painted, painted === mode ? only : new Set()), 0, 0);
    const parts = offeredMeasures(maps).map((name) => [name, sharesOf(video, maps, panel.map, name)[frame]]).filter(([, share]) => share !== null);
    panel.stats.replaceChildren(...parts.flatMap(([name, share], i) => [i ? " · " : "", make(name === mode ? "b" : "span", { textContent: `${percent(share)} ${MEASURES[name].word}` })]));
  }
  if (isQuiet) return;
  const classes = panel.map ? composition(video, panel.map, frame).slice(0, 5).map(([id, share]) => `${data.classes[id].name} ${percent(share, 0)}`).join(", ") || "no class" : "";
  panel.stage.setAttribute("aria-label", `${frameName(video, frame)} of ${video.name}, ${panel.map ? `${panel.label}: ${classes}. ${panel.stats.textContent}` : "the frame itself"}`);
}

function frameName(video, frame) {
  return `Frame ${count(video.positions[frame] + 1)} of ${count(video.total)}`;
}

// The outline of a region asked about, in the frames it lies in.
function outline(panel, video, frame, region) {
  const position = video.positions[frame], isHere = region && region.box && position >= region.first && position <= region.last;
  panel.region.hidden = !isHere;
  if (!isHere) return;
  const [left, top, right, bottom] = region.box, { fullWidth: w, fullHeight: h } = video;
  Object.assign(panel.region.style, { left: `${100 * left / w}%`, top: `${100 * top / h}%`, width: `${100 * (right - left) / w}%`, height: `${100 * (bottom - top) / h}%` });
}

// The class under one place, named in every panel.
function pointAt(panel, video, frame, [x, y]) {
  const column = Math.min(Math.floor(x * video.width), video.width - 1), row = Math.min(Math.floor(y * video.height), video.height - 1);
  Object.assign(panel.spot.style, { left: `${100 * x}%`, top: `${100 * y}%` });
  panel.spot.hidden = false;
  if (!panel.map) return;
  const id = labelsAt(video, panel.map, frame)[row * video.width + column];
  panel.pointed.replaceChildren(...(id === IGNORE ? ["no class"] : [swatch(data.classes[id].colour), data.classes[id].name]));
  panel.pointed.hidden = false;
  panel.stats.hidden = true;
}

function unpoint(panel) {
  panel.spot.hidden = panel.pointed.hidden = true;
  panel.stats.hidden = false;
}
