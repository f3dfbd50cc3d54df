"use strict";
// Every number and name is in the markup; nothing here holds text of the pictures or labels.
const RAMP = [[0, 40, 10, 90, 0], [.15, 75, 20, 110, 90], [.4, 190, 50, 85, 150], [.7, 246, 130, 30, 185], [1, 255, 240, 130, 220]];
const filter = document.getElementById("filter"), where = document.getElementById("where");
const main = document.querySelector("main");
const cards = [...main.querySelectorAll("article")].map((node) => ({
  node, figure: node.querySelector("figure"), pinned: null,
  labels: [...node.querySelectorAll(".label")].map((button) => ({
    button, name: button.firstElementChild.textContent.toLowerCase(), p: Number(button.dataset.p), matched: false,
  })),
}));

function colour(value) {
  const k = Math.max(1, RAMP.findIndex((stop) => value <= stop[0]));
  const [low, high] = [RAMP[k - 1], RAMP[k]], part = (value - low[0]) / (high[0] - low[0]);
  return [1, 2, 3, 4].map((c) => low[c] + part * (high[c] - low[c]));
}

function paint(canvas, values, width) {
  canvas.width = width;
  canvas.height = values.length / width;
  const context = canvas.getContext("2d"), pixels = context.createImageData(canvas.width, canvas.height);
  values.forEach((value, i) => pixels.data.set(colour(value / 255), 4 * i));
  context.putImageData(pixels, 0, 0);
}

function show(card, button) {
  for (const label of card.labels) label.button.classList.toggle("shown", label.button === button);
  const mapped = Boolean(button && button.dataset.map);
  card.figure.classList.toggle("mapped", mapped);
  if (mapped) {
    const values = Uint8Array.from(atob(button.dataset.map), (c) => c.charCodeAt(0));
    paint(card.figure.querySelector("canvas"), values, Number(card.node.dataset.columns));
  }
}

function rest(card) {  // what is shown where nothing is pointed at
  const best = where.checked && card.labels.find((label) => label.matched);
  show(card, card.pinned || (best ? best.button : null));
}

function pin(card, button) {
  card.pinned = button;
  for (const label of card.labels) label.button.setAttribute("aria-pressed", label.button === button);
}

function apply() {
  const words = filter.value.toLowerCase().split(",").map((word) => word.trim()).filter(Boolean);
  const found = [];
  for (const card of cards) {
    // A label that is spelt just so goes before those that only contain the word.
    const exact = new Set(card.labels.map((label) => label.name).filter((name) => words.includes(name)));
    const says = (label, word) => (exact.has(word) ? label.name === word : label.name.includes(word));
    for (const label of card.labels) {
      label.matched = words.some((word) => says(label, word));
      label.button.classList.toggle("matched", label.matched);
    }
    const scores = words.map((word) => Math.max(-1, ...card.labels.filter((l) => says(l, word)).map((l) => l.p)));
    card.score = Math.min(2, ...scores);
    card.node.hidden = card.score < 0;
    if (!card.node.hidden) found.push(card);
    rest(card);
  }
  // The sort is stable and without words all scores are the same: the order of the file.
  main.append(...found.sort((a, b) => b.score - a.score).map((card) => card.node));
  const pictures = cards.length === 1 ? "picture" : "pictures";
  document.getElementById("count").textContent =
    words.length ? `${found.length} of ${cards.length} ${pictures}` : `${cards.length} ${pictures}`;
}

for (const card of cards) {
  for (const { button } of card.labels) {
    button.addEventListener("pointerenter", (event) => event.pointerType === "mouse" && show(card, button));
    button.addEventListener("pointerleave", (event) => event.pointerType === "mouse" && rest(card));
    button.addEventListener("focus", () => button.matches(":focus-visible") && show(card, button));
    button.addEventListener("blur", () => rest(card));
    button.addEventListener("click", () => {
      pin(card, card.pinned === button ? null : button);
      rest(card);
    });
  }
}
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") cards.forEach((card) => (pin(card, null), rest(card)));
});
filter.addEventListener("input", () => {
  history.replaceState(null, "", "#" + encodeURIComponent(filter.value));
  apply();
});
where.addEventListener("change", () => cards.forEach(rest));

const names = new Set([...main.querySelectorAll(".label > span")].map((span) => span.textContent));
document.getElementById("names").append(...[...names].sort().map((name) => new Option(name, name)));
const mapped = main.querySelector("[data-map]") !== null;
document.querySelector(".option").hidden = document.querySelector(".scale").hidden = !mapped;
paint(document.querySelector(".scale canvas"), Array.from({ length: 64 }, (_, i) => (255 * i) / 63), 64);
function linked() {
  try {
    filter.value = decodeURIComponent(location.hash.slice(1));
  } catch {
    filter.value = "";
  }
  apply();
}
window.addEventListener("hashchange", linked);
linked();
