// Where a prediction flickers in the whole video: in which share of the frames shown each pixel does.

// Five colours of the map "magma" (matplotlib, CC0), from its purple on, so that all stand out from a dark picture.
const HEAT = [[101, 26, 128], [183, 55, 121], [241, 96, 93], [254, 176, 120], [252, 253, 191]];

function heatColour(share) {
  const at = Math.min(Math.max(share, 0), 1) * (HEAT.length - 1), low = Math.min(Math.floor(at), HEAT.length - 2);
  return HEAT[low].map((part, i) => Math.round(part + (at - low) * (HEAT[low + 1][i] - part)));
}

// Frames in which each pixel flickers, and in which class it does.
function countFlicker(video, map) {
  if (map.heat) return map.heat;
  const size = video.width * video.height, counts = new Uint16Array(size), classes = new Uint32Array(256);
  const frames = video.positions.map((_, frame) => frame).filter((frame) => video.positions[frame] > 0);
  for (const frame of frames) {
    const labels = labelsAt(video, map, frame);
    eachBit(bitsAt(video, map, frame), (i) => { counts[i]++; classes[labels[i]]++; });
  }
  const total = classes.reduce((sum, each) => sum + each, 0);
  map.heat = { counts, classes, total, frames: frames.length, ever: counts.reduce((sum, each) => sum + (each > 0), 0) / size };
  return map.heat;
}

// The share at the light end of the legend: what all but one in two hundred flickering pixels stay below.
function heatEnd(heats) {
  let end = 1;
  for (const { counts, frames } of heats) {
    const histogram = new Uint32Array(frames + 1);
    for (const each of counts) histogram[each]++;
    let left = (counts.length - histogram[0]) / 200, at = frames;
    while (at > 1 && (left -= histogram[at]) >= 0) at--;
    end = Math.max(end, at);
  }
  return end;
}

function heatWords(video, map) {
  const { classes, total, frames, ever } = map.heat, size = video.width * video.height;
  if (total === 0) return "No pixel flickers in any frame.";
  const most = [...classes].map((number, id) => [number, id]).filter(([number]) => number > 0).sort((a, b) => b[0] - a[0]).slice(0, 3);
  const names = most.map(([number, id]) => `${data.classes[id].name} (${percent(number / total, 0)})`);
  return `${percent(total / frames / size, 2)} of the pixels flicker in a frame on average, ${percent(ever, 0)} at least once. They turn most often into ${names.join(", ")}.`;
}

function paintHeat(canvas, video, map, end, picture) {
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(picture, 0, 0, video.width, video.height);
  const image = context.getImageData(0, 0, video.width, video.height), out = new Uint32Array(image.data.buffer);
  const { counts } = map.heat, colours = Array.from({ length: end + 1 }, (_, number) => packed(heatColour(end > 1 ? (number - 1) / (end - 1) : 1)));
  for (let i = 0; i < counts.length; i++) {
    const grey = 0.3 * (0.299 * image.data[4 * i] + 0.587 * image.data[4 * i + 1] + 0.114 * image.data[4 * i + 2]);
    out[i] = counts[i] ? colours[Math.min(counts[i], end)] : packed([grey, grey, grey]);
  }
  context.putImageData(image, 0, 0);
}

async function buildHeat(section, video, maps, pictures, isStill) {
  const flickering = maps.filter((map) => map.bits);
  section.hidden = flickering.length === 0 || video.positions.at(-1) === 0;
  if (section.hidden) return;
  flickering.forEach((map) => countFlicker(video, map));
  const picture = pictures[Math.floor(pictures.length / 2)], end = heatEnd(flickering.map((map) => map.heat)), { frames } = flickering[0].heat;
  await picture.decode();
  if (!isStill()) return;
  const steadiest = flickering.filter((map) => !map.truth).sort((a, b) => a.heat.total - b.heat.total);
  byId("heat-maps").replaceChildren(...flickering.map((map) => {
    const words = heatWords(video, map), canvas = make("canvas", { width: video.width, height: video.height, role: "img", "aria-label": `Heat map of ${map.name}. ${words}` });
    paintHeat(canvas, video, map, end, picture);
    const said = make("span", { className: "pointed" });
    canvas.addEventListener("pointermove", (event) => {
      const box = canvas.getBoundingClientRect(), place = (at, length, most) => Math.min(Math.max(Math.floor(at / length * most), 0), most - 1);
      const number = map.heat.counts[place(event.clientY - box.top, box.height, video.height) * video.width + place(event.clientX - box.left, box.width, video.width)];
      said.textContent = `here in ${number} of ${frames} frames`;
    });
    canvas.addEventListener("pointerleave", () => { said.textContent = ""; });
    return make("figure", {}, canvas, make("figcaption", {},
      make("p", { className: "who" }, lineMark(map.key), make("b", { textContent: map.name }),
        ...(steadiest.length > 1 && map === steadiest[0] ? [make("span", { className: "tag", textContent: "flickers least" })] : []), said),
      make("p", { className: "words", textContent: words })));
  }));
  byId("heat-legend").style.backgroundImage = `linear-gradient(90deg, ${HEAT.map((colour) => `rgb(${colour})`).join(", ")})`;
  byId("heat-low").textContent = end > 1 ? `1 of ${frames} frames` : "";
  byId("heat-high").textContent = `${end} of ${frames}${end < frames ? " or more" : ""}`;
}
