"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const byId = (id) => document.getElementById(id);
  if (!byId("viewer")) { makeSortable(); return; }

  const IGNORE = 255;
  const MOST_PANELS = 8;
  const WRONG = [208, 32, 112], MOVED = [240, 150, 0];
  const MODES = { classes: "Classes", errors: "Errors", changes: "Changes" };
  const scrubber = byId("scrubber"), panelsBox = byId("panels");
  const state = { video: 0, frame: 0, mode: "classes", opacity: 0.55, only: new Set(), playing: false, region: null };
  let video, images, maps, panels = [], timeline = null;

  // ---- small things -------------------------------------------------------------------------
  function make(tag, properties = {}, ...children) {
    const element = document.createElement(tag);
    for (const [key, value] of Object.entries(properties)) {
      if (key.includes("-") || key === "role") element.setAttribute(key, value);
      else element[key] = value;
    }
    element.append(...children);
    return element;
  }
  const percent = (share, digits = 1) => `${(100 * share).toFixed(digits)}%`;
  const rgb = (hex) => [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16));
  // bytes R, G, B, A in memory order, as ImageData wants them
  const packed = ([r, g, b], alpha = 255) => new Uint32Array(new Uint8Array([r, g, b, alpha]).buffer)[0];

  async function inflate(text) {
    const bytes = Uint8Array.from(atob(text), (char) => char.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
    return new Uint8Array(await new Response(stream).arrayBuffer());
  }

  function swatch(id) {
    const element = make("span", { className: "swatch" });
    element.style.background = data.classes[id].colour;
    return element;
  }

  // ---- what a frame's label map says ---------------------------------------------------------
  const size = () => video.width * video.height;
  const mapAt = (map, frame) => map.labels.subarray(frame * size(), (frame + 1) * size());
  const truthMap = () => maps.find((map) => map.truth);

  function shareWrong(map, frame) {
    const truth = truthMap();
    if (!truth || map.truth) return null;
    const a = mapAt(map, frame), b = mapAt(truth, frame);
    let wrong = 0, known = 0;
    for (let i = 0; i < b.length; i++) if (b[i] !== IGNORE) { known++; if (a[i] !== b[i]) wrong++; }
    return known ? wrong / known : null;
  }

  function shareMoved(map, frame) {
    if (frame === 0) return null;
    const a = mapAt(map, frame), b = mapAt(map, frame - 1);
    let moved = 0;
    for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) moved++;
    return moved / a.length;
  }

  function composition(map, frame) {
    const counts = new Uint32Array(256);
    for (const id of mapAt(map, frame)) counts[id]++;
    return video.present.map((id) => [id, counts[id] / size()]).filter(([, share]) => share > 0).sort((a, b) => b[1] - a[1]);
  }

  // ---- drawing ---------------------------------------------------------------------------------
  function paint(map, frame) {
    const image = new ImageData(video.width, video.height), out = new Uint32Array(image.data.buffer);
    const labels = mapAt(map, frame), truth = truthMap(), w = video.width, n = labels.length;
    if (state.mode === "errors" && truth && !map.truth) {
      const right = mapAt(truth, frame), colour = packed(WRONG);
      for (let i = 0; i < n; i++) if (right[i] !== IGNORE && labels[i] !== right[i]) out[i] = colour;
    } else if (state.mode === "changes") {
      const before = mapAt(map, Math.max(frame - 1, 0)), colour = packed(MOVED);
      for (let i = 0; i < n; i++) if (labels[i] !== before[i]) out[i] = colour;
    } else {
      // as mvcseg.report.overlay: a line is dark between light classes and light between dark ones
      const fill = new Uint32Array(256), dark = new Uint32Array(256), light = new Uint32Array(256), luma = new Uint32Array(256);
      data.classes.forEach(({ colour }, id) => {
        const parts = rgb(colour), alpha = state.only.size === 0 || state.only.has(id) ? 255 : 0;
        const towards = (target) => packed(parts.map((part) => Math.round(part + 0.6 * (target - part))), alpha);
        luma[id] = 299 * parts[0] + 587 * parts[1] + 114 * parts[2];
        [fill[id], dark[id], light[id]] = [packed(parts, alpha), towards(0), towards(255)];
      });
      for (let i = 0; i < n; i++) {
        const id = labels[i];
        if (id === IGNORE) continue;
        let beside = (i + 1) % w ? labels[i + 1] : id;
        if (beside === id || beside === IGNORE) beside = i + w < n ? labels[i + w] : id;
        const isEdge = beside !== id && beside !== IGNORE;
        out[i] = !isEdge ? fill[id] : luma[id] + luma[beside] > 200000 ? dark[id] : light[id];
      }
    }
    return image;
  }

  function drawPanel(panel) {
    const frame = state.frame, image = images[frame];
    const put = () => { if (state.frame === frame && panel.image) panel.image.getContext("2d").drawImage(image, 0, 0, video.width, video.height); };
    if (image.complete && image.naturalWidth) put(); else image.onload = () => panels.forEach((each) => each.redraw());
    panel.redraw = put;
    panel.stats.textContent = "";
    if (panel.map) {
      panel.canvas.getContext("2d").putImageData(paint(panel.map, frame), 0, 0);
      panel.canvas.style.opacity = state.opacity;
      const wrong = shareWrong(panel.map, frame), moved = shareMoved(panel.map, frame);
      const parts = [];
      if (wrong !== null) parts.push(`${percent(wrong)} wrong`);
      if (moved !== null) parts.push(`${percent(moved)} changed`);
      panel.stats.textContent = parts.join(" · ");
    }
    if (!state.playing) describe(panel);
    drawRegion(panel);
    if (panel.spotAt) point(...panel.spotAt);
  }

  function describe(panel) {
    const parts = panel.map ? composition(panel.map, state.frame).slice(0, 5).map(([id, share]) => `${data.classes[id].name} ${percent(share, 0)}`) : [];
    const what = panel.map ? `${panel.label}: ${parts.join(", ") || "no class"}` : "the frame itself";
    panel.stage.setAttribute("aria-label", `${frameName(state.frame)} of ${video.name}, ${what}. ${panel.stats.textContent}`);
  }

  function drawRegion(panel) {
    const region = state.region, position = video.positions[state.frame];
    const isHere = region && region.box && position >= region.first && position <= region.last;
    panel.region.hidden = !isHere;
    if (!isHere) return;
    const [left, top, right, bottom] = region.box, { fullWidth: w, fullHeight: h } = video;
    Object.assign(panel.region.style, { left: `${100 * left / w}%`, top: `${100 * top / h}%`, width: `${100 * (right - left) / w}%`, height: `${100 * (bottom - top) / h}%` });
  }

  function frameName(frame) {
    const number = video.positions[frame] + 1;
    return `Frame ${number.toLocaleString("en")} of ${video.total.toLocaleString("en")}`;
  }

  function draw() {
    panels.forEach(drawPanel);
    scrubber.value = state.frame;
    scrubber.setAttribute("aria-valuetext", frameName(state.frame));
    const number = `${(video.positions[state.frame] + 1).toLocaleString("en")} / ${video.total.toLocaleString("en")}`;
    byId("position").textContent = video.frameNames ? `${number} · ${video.frameNames[state.frame]}` : number;
    if (timeline) timeline.moveTo(state.frame);
  }

  function show(frame) {
    state.frame = Math.min(Math.max(frame, 0), images.length - 1);
    draw();
  }

  // ---- the class under the pointer, in all panels at once -------------------------------------
  function point(x, y) {
    const column = Math.min(Math.floor(x * video.width), video.width - 1), row = Math.min(Math.floor(y * video.height), video.height - 1);
    for (const panel of panels) {
      panel.spotAt = [x, y];
      Object.assign(panel.spot.style, { left: `${100 * x}%`, top: `${100 * y}%` });
      panel.spot.hidden = false;
      if (!panel.map) continue;
      const id = mapAt(panel.map, state.frame)[row * video.width + column];
      panel.pointed.replaceChildren(...(id === IGNORE ? ["no class"] : [swatch(id), data.classes[id].name]));
      panel.pointed.hidden = false;
      panel.stats.hidden = true;
    }
  }

  function unpoint() {
    for (const panel of panels) {
      panel.spotAt = null;
      panel.spot.hidden = panel.pointed.hidden = true;
      panel.stats.hidden = false;
    }
  }

  // ---- building ---------------------------------------------------------------------------------
  function buildPanel(label, map, key) {
    const stage = make("div", { className: "stage", role: "img" });
    stage.style.aspectRatio = `${video.width} / ${video.height}`;
    const sized = (className) => make("canvas", { className, width: video.width, height: video.height });
    const panel = {
      label, map, stage, image: sized("image"), canvas: sized("labels"),
      spot: make("span", { className: "spot", hidden: true }), region: make("span", { className: "region", hidden: true }),
      stats: make("span", { className: "stats" }), pointed: make("span", { className: "pointed", hidden: true }), spotAt: null, redraw() {},
    };
    stage.append(panel.image, ...(map ? [panel.canvas] : []), panel.region, panel.spot);
    const move = (event) => {
      const box = stage.getBoundingClientRect();
      point(Math.min(Math.max((event.clientX - box.left) / box.width, 0), 0.9999), Math.min(Math.max((event.clientY - box.top) / box.height, 0), 0.9999));
    };
    stage.addEventListener("pointermove", move);
    stage.addEventListener("pointerdown", move);
    stage.addEventListener("pointerleave", (event) => { if (event.pointerType === "mouse") unpoint(); });
    const name = make("span", { className: "name" });
    if (key !== null) { const mark = make("span", { className: "key" }); mark.style.setProperty("--key", `var(--line-${key % 6})`); name.append(mark); }
    name.append(label);
    const grow = make("button", { type: "button", className: "grow", textContent: "Enlarge", "aria-label": `Enlarge ${label}` });
    panel.figure = make("figure", { className: "panel" }, stage, make("figcaption", {}, name, panel.stats, panel.pointed, grow));
    grow.addEventListener("click", () => {
      const isWide = panel.figure.classList.toggle("wide");
      grow.textContent = isWide ? "Reduce" : "Enlarge";
      grow.setAttribute("aria-label", `${grow.textContent} ${label}`);
    });
    return panel;
  }

  function chip(label, isPressed, onClick) {
    const button = make("button", { type: "button", className: "chip", "aria-pressed": String(isPressed) }, label);
    button.addEventListener("click", () => onClick(button));
    return button;
  }

  function layOut() {
    const shown = panels.filter((panel) => panel.isShown);
    panelsBox.replaceChildren(...shown.map((panel) => panel.figure));
    const n = shown.length, room = panelsBox.clientWidth, gap = 14;
    let columns = Math.min(n, 2), width = room;
    if (!matchMedia("(max-width: 640px)").matches) {
      // as large as lets all rows stand in the window, but no smaller than can be read
      const height = innerHeight - 250, widths = [];
      for (let c = 1; c <= n; c++) {
        const own = (room - gap * (c - 1)) / c, fitting = (height / Math.ceil(n / c) - 46) * video.width / video.height;
        widths.push(Math.max(Math.min(own, fitting), Math.min(own, 320)));
      }
      // beside one another rather than below, where that costs little
      columns = widths.findLastIndex((each) => each >= 0.9 * Math.max(...widths)) + 1;
      width = widths[columns - 1] ?? 0;
    }
    panelsBox.style.setProperty("--columns", Math.max(columns, 1));
    panelsBox.style.setProperty("--width", `${Math.floor(width)}px`);
  }

  function buildControls() {
    const columns = byId("columns"), modes = byId("modes"), legend = byId("legend");
    columns.querySelectorAll("button").forEach((button) => button.remove());
    modes.querySelectorAll("button").forEach((button) => button.remove());
    columns.append(...panels.map((panel) => chip(panel.label, panel.isShown, (button) => {
      panel.isShown = !panel.isShown;
      button.setAttribute("aria-pressed", String(panel.isShown));
      layOut();
    })));
    const offered = Object.keys(MODES).filter((mode) => mode !== "errors" || (truthMap() && maps.length > 1));
    if (!offered.includes(state.mode)) state.mode = "classes";
    modes.append(...offered.map((mode) => chip(MODES[mode], mode === state.mode, (button) => {
      state.mode = mode;
      modes.querySelectorAll("button").forEach((each) => each.setAttribute("aria-pressed", String(each === button)));
      buildTimeline();
      draw();
    })));
    legend.replaceChildren(...video.present.map((id) => make("li", {}, chip("", state.only.has(id), (button) => {
      state.only.has(id) ? state.only.delete(id) : state.only.add(id);
      button.setAttribute("aria-pressed", String(state.only.has(id)));
      draw();
    }))));
    legend.querySelectorAll("button").forEach((button, i) => button.append(swatch(video.present[i]), data.classes[video.present[i]].name));
    for (const id of ["modes", "classes", "opacity-field"]) byId(id).hidden = maps.length === 0;
  }

  function aboutText() {
    const sentences = [`Pictures are ${video.width} × ${video.height}` + (video.width < video.fullWidth ? `, scaled down from ${video.fullWidth} × ${video.fullHeight}.` : ".")];
    if (video.positions.length < video.total) sentences.push(`${video.positions.length} of ${video.total.toLocaleString("en")} frames are in this page, evenly spaced.`);
    if (maps.length) sentences.push("“Wrong” and “changed” are shares of the pixels shown: against the ground truth where it has a class, and against the picture before.", "Choose classes to see them alone; point at a picture to name what is there.");
    return sentences.join(" ");
  }

  // ---- the timeline: one line a prediction, wrong or changed pixels by frame ---------------------
  function buildTimeline() {
    const box = byId("timeline"), hasTruth = Boolean(truthMap());
    const measure = state.mode === "changes" || !hasTruth ? shareMoved : shareWrong;
    const lines = maps.filter((map) => !map.truth).map((map, key) => ({ map, key, shares: images.map((_, frame) => measure(map, frame)) }));
    const most = Math.max(0, ...lines.flatMap((line) => line.shares.map((share) => share ?? 0)));
    box.hidden = images.length < 3 || lines.length === 0 || most === 0;
    timeline = null;
    if (box.hidden) return;
    const space = "http://www.w3.org/2000/svg", svg = document.createElementNS(space, "svg");
    const x = (frame) => 1000 * (frame + 0.5) / images.length, y = (share) => 80 - 74 * share / most;
    const path = (d, className) => {
      const element = document.createElementNS(space, "path");
      element.setAttribute("d", d);
      element.setAttribute("class", className);
      svg.append(element);
      return element;
    };
    const now = path("M0 0V84", "now");
    for (const { key, shares } of lines) {
      const spots = shares.map((share, frame) => share === null ? null : `${x(frame).toFixed(1)} ${y(share).toFixed(1)}`).filter(Boolean);
      const element = path(`M${spots.join("L")}`, "line");
      element.style.setProperty("--key", `var(--line-${key % 6})`);
      if (key % 6 !== key) element.style.strokeDasharray = "5 3";
    }
    const title = measure === shareWrong ? "Wrong pixels by frame" : "Pixels that change class from frame to frame";
    const means = lines.map(({ map, shares }) => {
      const known = shares.filter((share) => share !== null);
      return [map.name, known.reduce((sum, share) => sum + share, 0) / known.length];
    });
    svg.setAttribute("viewBox", "0 0 1000 84");
    svg.setAttribute("preserveAspectRatio", "none");
    svg.setAttribute("role", "img");
    svg.setAttribute("aria-label", `${title}. On average: ${means.map(([name, mean]) => `${name} ${percent(mean)}`).join(", ")}. At most ${percent(most)}.`);
    svg.addEventListener("pointerdown", (event) => {
      const area = svg.getBoundingClientRect();
      show(Math.floor((event.clientX - area.left) / area.width * images.length));
    });
    const keys = means.map(([name, mean], key) => {
      const mark = make("span", { className: "key" });
      mark.style.setProperty("--key", `var(--line-${key % 6})`);
      return make("span", {}, mark, `${name} ${percent(mean)}`);
    });
    box.replaceChildren(make("figure", {}, make("figcaption", {}, make("b", { textContent: title }), "on average", ...keys),
      make("div", { className: "chart" }, svg, make("span", { className: "top", textContent: percent(most) }), make("span", { className: "bottom", textContent: "0" }))));
    timeline = { moveTo: (frame) => now.setAttribute("d", `M${x(frame).toFixed(1)} 0V84`) };
  }

  // ---- playing -----------------------------------------------------------------------------------
  function play(isPlaying) {
    state.playing = isPlaying && images.length > 1;
    byId("play").classList.toggle("playing", state.playing);
    byId("play").setAttribute("aria-label", state.playing ? "Pause" : "Play");
    if (!state.playing) { if (video) draw(); return; }
    // sampled videos keep their pace: one picture stands for several frames
    const pause = 1000 / video.fps * Math.max(1, (video.total - 1) / (images.length - 1));
    let due = performance.now() + pause;
    const tick = (time) => {
      if (!state.playing) return;
      if (time >= due) { due = Math.max(due + pause, time); show((state.frame + 1) % images.length); }
      requestAnimationFrame(tick);
    };
    requestAnimationFrame(tick);
  }

  const step = (by) => { play(false); show(state.frame + by); };

  function onKey(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("button, select, input")) return;
    const action = { ArrowLeft: () => step(-1), ArrowRight: () => step(1), Home: () => step(-images.length), End: () => step(images.length), " ": () => play(!state.playing) }[event.key];
    if (action) { event.preventDefault(); action(); }
  }

  async function open(index) {
    play(false);
    state.video = index;
    video = data.videos[index];
    byId("viewer").setAttribute("aria-busy", "true");
    video.decoded ??= await Promise.all(video.maps.map(async (map) => ({ name: map.name, truth: map.truth, labels: await inflate(map.data) })));
    if (state.video !== index) return;
    maps = video.decoded;
    images = video.images.map((text) => Object.assign(new Image(), { src: `data:image/webp;base64,${text}` }));
    let key = 0;
    panels = [buildPanel("Frame", null, null), ...maps.map((map) => buildPanel(map.truth ? "Ground truth" : map.name, map, map.truth ? null : key++))];
    // of many, the first and the last: what a chain of steps began with and came to
    panels.forEach((panel, i) => { panel.isShown = i < 3 || i >= panels.length - MOST_PANELS + 3; });
    scrubber.max = images.length - 1;
    scrubber.disabled = images.length < 2;
    state.only.clear();
    state.frame = 0;
    byId("about").textContent = aboutText();
    buildControls();
    layOut();
    buildTimeline();
    draw();
    byId("viewer").removeAttribute("aria-busy");
  }

  // ---- sorting tables ------------------------------------------------------------------------------
  function makeSortable() {
    for (const table of document.querySelectorAll("table[data-sortable]")) {
      const body = table.tBodies[0], original = [...body.rows];
      if (original.length < 2) continue;
      [...table.tHead.rows[0].cells].forEach((head, column) => {
        const button = make("button", { type: "button" }, ...head.childNodes);
        head.append(button);
        button.addEventListener("click", () => {
          const isNumber = column > 0, now = head.getAttribute("aria-sort");
          const first = isNumber ? "descending" : "ascending", second = isNumber ? "ascending" : "descending";
          const next = now === null ? first : now === first ? second : null;
          table.querySelectorAll("[aria-sort]").forEach((each) => each.removeAttribute("aria-sort"));
          if (next) head.setAttribute("aria-sort", next);
          const sign = next === "ascending" ? 1 : -1;
          const value = (row) => isNumber ? parseFloat(row.cells[column].dataset.value) : row.cells[0].textContent.trim();
          const compare = (a, b) => {
            const x = value(a), y = value(b);
            if (!isNumber) return sign * x.localeCompare(y);
            return Number.isNaN(x) - Number.isNaN(y) || sign * (x - y); // rows without a score stay last
          };
          body.append(...(next ? [...original].sort(compare) : original));
        });
      });
    }
  }

  // ---- wiring -----------------------------------------------------------------------------------------
  images = [];
  makeSortable();
  scrubber.addEventListener("input", () => { const frame = Number(scrubber.value); play(false); show(frame); });
  byId("previous").addEventListener("click", () => step(-1));
  byId("next").addEventListener("click", () => step(1));
  byId("play").addEventListener("click", () => play(!state.playing));
  byId("opacity").addEventListener("input", (event) => {
    state.opacity = Number(event.target.value) / 100;
    byId("opacity-value").textContent = `${event.target.value}%`;
    panels.forEach((panel) => { panel.canvas.style.opacity = state.opacity; });
  });
  panelsBox.addEventListener("keydown", onKey);
  byId("video")?.addEventListener("change", (event) => open(Number(event.target.value)));
  addEventListener("resize", () => { if (video) layOut(); });
  for (const button of document.querySelectorAll(".jump")) {
    button.addEventListener("click", async () => {
      const { video: index, frame, last, box } = button.dataset;
      if (Number(index) !== state.video) {
        byId("video").value = index;
        await open(Number(index));
      }
      state.region = { first: Number(frame), last: Number(last), box: box ? box.split(",").map(Number) : null };
      play(false);
      const inside = video.positions.findIndex((position) => position >= Number(frame));
      show(inside < 0 ? images.length - 1 : inside);
      byId("viewer").scrollIntoView({ block: "start" });
      panelsBox.focus({ preventScroll: true });
    });
  }
  open(0).catch((error) => {
    byId("problem").hidden = false;
    byId("problem").textContent = `The frames cannot be shown: ${error.message}. A browser from 2023 or later is needed.`;
    throw error;
  });
})();
