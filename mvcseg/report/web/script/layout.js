// Layout: how many panels stand beside one another, and how large an enlarged one is.

// As many columns as let all rows stand in the window, but no picture smaller than can be read.
function layOut(box, panels, video) {
  const shown = panels.filter((panel) => panel.isShown), n = shown.length, room = box.clientWidth, gap = 14;
  const focused = document.activeElement;
  box.replaceChildren(...shown.map((panel) => panel.figure));
  // what is taken out and put in again has lost the keyboard's place
  if (focused !== document.activeElement && box.contains(focused)) focused.focus({ preventScroll: true });
  let columns = Math.min(n, 2), width = room;
  if (!matchMedia("(max-width: 640px)").matches) {
    const height = innerHeight - 285, widths = [];
    for (let c = 1; c <= n; c++) {
      const own = (room - gap * (c - 1)) / c, fitting = (height / Math.ceil(n / c) - 46) * video.width / video.height;
      widths.push(Math.max(Math.min(own, fitting), Math.min(own, 320)));
    }
    columns = columnsOf(n, widths);
    width = widths[columns - 1] ?? 0;
  }
  fitEnlarged(box, shown, video);
  box.style.setProperty("--columns", Math.max(columns, 1));
  box.style.setProperty("--width", `${Math.floor(width)}px`);
}

// Beside one another rather than below, where that costs little, and the last row full, where that can be.
function columnsOf(n, widths) {
  const best = Math.max(...widths), most = (test) => widths.findLastIndex((each, i) => test(each, i + 1)) + 1;
  const rows = Math.ceil(n / most((each) => each >= 0.9 * best));
  const full = (share) => most((each, c) => each >= share * best && n % c === 0 && n / c <= rows);
  return full(0.9) || full(0.75) || Math.ceil(n / rows);
}

// An enlarged picture is as large as the window has room for above the bar.
function fitEnlarged(box, shown, video) {
  const bar = document.querySelector(".transport").offsetHeight, caption = Math.max(46, ...shown.map((panel) => panel.figure.lastChild.offsetHeight));
  const height = Math.max(innerHeight - bar - caption - 32, 160);
  box.style.setProperty("--bar", `${bar}px`);
  box.style.setProperty("--wide", `${Math.floor(Math.min(box.clientWidth, height * video.width / video.height))}px`);
}
