// Wiring.

makeSortable();
buildCurves();
if (byId("viewer")) startViewer();

function startViewer() {
  byId("scrubber").addEventListener("input", (event) => { const frame = Number(event.target.value); play(false); show(frame); });
  byId("previous").addEventListener("click", () => step(-1));
  byId("next").addEventListener("click", () => step(1));
  byId("play").addEventListener("click", () => play(!state.isPlaying));
  byId("opacity").addEventListener("input", (event) => {
    state.opacity[state.mode === "classes" ? "classes" : "marks"] = Number(event.target.value) / 100;
    setOpacity();
  });
  byId("viewer").addEventListener("keydown", onKey);
  byId("video")?.addEventListener("change", (event) => start(Number(event.target.value)));
  byId("range-all").addEventListener("click", () => { selectRange(null); state.region = null; draw(); byId("panels").focus({ preventScroll: true }); });
  byId("range-back").addEventListener("click", goBack);
  addEventListener("resize", () => { if (state.video) layOut(byId("panels"), state.panels, state.video); });
  for (const button of document.querySelectorAll(".jump")) button.addEventListener("click", () => jump(button));
  start(0);
}

function start(index) {
  return open(index).catch((error) => {
    byId("problem").hidden = false;
    byId("problem").textContent = `The frames cannot be shown: ${error.message}. A browser from 2023 or later is needed.`;
    throw error;
  });
}
