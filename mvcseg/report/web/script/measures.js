// A video's label maps, and what they say frame by frame.

const IGNORE = 255;

async function inflate(text) {
  const bytes = Uint8Array.from(atob(text), (char) => char.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

// Label maps and flicker bits of a video, each with the number of its sign; the ground truth has none.
async function decodeMaps(video) {
  let key = 0;
  return Promise.all(video.maps.map(async ({ name, truth, data, flicker }) => ({
    name: truth ? "Ground truth" : name,
    truth,
    key: truth ? null : key++,
    labels: await inflate(data),
    bits: flicker === null ? null : await inflate(flicker),
  })));
}

const truthOf = (maps) => maps.find((map) => map.truth);
const hasBits = (maps) => maps.some((map) => map.bits);

function labelsAt(video, map, frame) {
  const size = video.width * video.height;
  return map.labels.subarray(frame * size, (frame + 1) * size);
}

function bitsAt(video, map, frame) {
  const length = Math.ceil(video.width * video.height / 8);
  return map.bits.subarray(frame * length, (frame + 1) * length);
}

function eachBit(bits, act) {
  for (let byte = 0; byte < bits.length; byte++) {
    if (bits[byte] === 0) continue;
    for (let bit = 0; bit < 8; bit++) if (bits[byte] & (128 >> bit)) act(8 * byte + bit);
  }
}

function shareWrong(video, maps, map, frame) {
  const truth = truthOf(maps);
  if (!truth || map.truth) return null;
  const a = labelsAt(video, map, frame), b = labelsAt(video, truth, frame);
  let wrong = 0, known = 0;
  for (let i = 0; i < b.length; i++) if (b[i] !== IGNORE) { known++; if (a[i] !== b[i]) wrong++; }
  return known ? wrong / known : null;
}

function shareChanged(video, maps, map, frame) {
  if (frame === 0) return null;
  const a = labelsAt(video, map, frame), b = labelsAt(video, map, frame - 1);
  let changed = 0;
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) changed++;
  return changed / a.length;
}

function shareFlickering(video, maps, map, frame) {
  if (!map.bits || video.positions[frame] === 0) return null;
  let flickering = 0;
  eachBit(bitsAt(video, map, frame), () => { flickering++; });
  return flickering / (video.width * video.height);
}

// The ways to look at a prediction: what the overlay paints, and what the line below counts.
const MEASURES = {
  errors: { label: "Errors", word: "wrong", share: shareWrong, title: "Wrong pixels, frame by frame", isOffered: (maps) => truthOf(maps) && maps.length > 1 },
  changes: { label: "Changes", word: "changed", share: shareChanged, title: "Pixels of another class than in the picture before", isOffered: (maps) => maps.length > 0 },
  flicker: { label: "Flicker", word: "flickering", share: shareFlickering, title: "Flicker: pixels that change class although nothing moved there (lower is steadier)", isOffered: hasBits },
};

const offeredMeasures = (maps) => Object.keys(MEASURES).filter((name) => MEASURES[name].isOffered(maps));

// Shares of all frames, counted once for each video.
function sharesOf(video, maps, map, name) {
  map.shares ??= {};
  map.shares[name] ??= video.positions.map((_, frame) => MEASURES[name].share(video, maps, map, frame));
  return map.shares[name];
}

function mean(shares) {
  const known = shares.filter((share) => share !== null);
  return known.length ? known.reduce((sum, share) => sum + share, 0) / known.length : null;
}

function composition(video, map, frame) {
  const counts = new Uint32Array(256), labels = labelsAt(video, map, frame);
  for (const id of labels) counts[id]++;
  return video.present.map((id) => [id, counts[id] / labels.length]).filter(([, share]) => share > 0).sort((a, b) => b[1] - a[1]);
}
