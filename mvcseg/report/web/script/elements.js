// Elements, numbers as text, and the signs by which a prediction is known everywhere on the page.

const data = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);

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
const count = (number) => number.toLocaleString("en");

// A prediction has a colour and a pattern of dashes, since colour alone must not tell two apart.
const LINE_COLOURS = 6;
const DASHES = [[], [7, 4], [2, 3], [9, 3, 2, 3]];

const lineColour = (key) => key === null ? "--quiet" : `--line-${key % LINE_COLOURS}`;
const lineDash = (key) => key === null ? [1, 3] : DASHES[key % DASHES.length];

function lineMark(key) {
  const mark = make("span", { className: "key", "aria-hidden": "true" });
  const stops = [];
  let at = 0;
  const [first, ...others] = lineDash(key);
  [first ?? 24, ...others].forEach((length, i) => {
    stops.push(`${i % 2 ? "transparent" : `var(${lineColour(key)})`} ${at}px ${at += length}px`);
  });
  mark.style.backgroundImage = `repeating-linear-gradient(90deg, ${stops.join(", ")})`;
  return mark;
}

function swatch(colour) {
  const element = make("span", { className: "swatch" });
  element.style.background = colour;
  return element;
}

function chip(label, isPressed, onClick) {
  const button = make("button", { type: "button", className: "chip", "aria-pressed": String(isPressed) }, ...[label].flat());
  button.addEventListener("click", () => onClick(button));
  return button;
}

// One pressed chip of several; the first child of the box is its legend.
function choices(box, names, chosen, onChoose) {
  box.querySelectorAll("button").forEach((button) => button.remove());
  box.append(...Object.entries(names).map(([key, label]) => chip(label, key === chosen, (button) => {
    box.querySelectorAll("button").forEach((each) => each.setAttribute("aria-pressed", String(each === button)));
    onChoose(key);
  })));
}
