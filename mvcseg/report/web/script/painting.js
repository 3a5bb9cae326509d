// Pictures of label maps: pixels of ImageData, four bytes each.

const PAINT = { errors: [208, 32, 112], changes: [240, 150, 0], flicker: [255, 214, 10] };
const rgb = (hex) => [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16));
// bytes R, G, B, A in memory order, as ImageData wants them
const packed = ([r, g, b], alpha = 255) => new Uint32Array(new Uint8Array([r, g, b, alpha]).buffer)[0];

function paint(video, maps, map, frame, mode, only) {
  const image = new ImageData(video.width, video.height), out = new Uint32Array(image.data.buffer);
  const labels = labelsAt(video, map, frame), truth = truthOf(maps);
  if (mode === "errors") {
    const right = labelsAt(video, truth, frame), colour = packed(PAINT.errors);
    for (let i = 0; i < labels.length; i++) if (right[i] !== IGNORE && labels[i] !== right[i]) out[i] = colour;
  } else if (mode === "changes") {
    const before = labelsAt(video, map, Math.max(frame - 1, 0)), colour = packed(PAINT.changes);
    for (let i = 0; i < labels.length; i++) if (labels[i] !== before[i]) out[i] = colour;
  } else if (mode === "flicker") {
    const colour = packed(PAINT.flicker);
    eachBit(bitsAt(video, map, frame), (i) => { out[i] = colour; });
  } else {
    paintClasses(labels, video.width, only, out);
  }
  return image;
}

// As mvcseg.report.overlay: a line is dark between light classes and light between dark ones.
function paintClasses(labels, width, only, out) {
  const fill = new Uint32Array(256), dark = new Uint32Array(256), light = new Uint32Array(256), luma = new Uint32Array(256);
  data.classes.forEach(({ colour }, id) => {
    const parts = rgb(colour), alpha = only.size === 0 || only.has(id) ? 255 : 0;
    const towards = (target) => packed(parts.map((part) => Math.round(part + 0.6 * (target - part))), alpha);
    luma[id] = 299 * parts[0] + 587 * parts[1] + 114 * parts[2];
    [fill[id], dark[id], light[id]] = [packed(parts, alpha), towards(0), towards(255)];
  });
  for (let i = 0; i < labels.length; i++) {
    const id = labels[i];
    if (id === IGNORE) continue;
    let beside = (i + 1) % width ? labels[i + 1] : id;
    if (beside === id || beside === IGNORE) beside = i + width < labels.length ? labels[i + width] : id;
    const isEdge = beside !== id && beside !== IGNORE;
    out[i] = !isEdge ? fill[id] : luma[id] + luma[beside] > 200000 ? dark[id] : light[id];
  }
}
