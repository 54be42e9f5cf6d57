"use strict";
// The parts of every training in a page: its settings, and the curve of its progress.

const TRAIN_RATES = [0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3], BATCHES = [1, 8, 32, 128];
const SPEEDS = { full: 0, slow: 400 }; // Milliseconds between steps.
const RESTARTING = ["train-rate", "train-batch", "train-optimizer", "train-bug", "train-seed"]; // All but the speed.
const MOST_POINTS = 300; // Of a curve.

function chosen() {
  const number = (id) => Number(byId(id).value);
  return {
    rate: number("train-rate"), batch: number("train-batch"), seed: number("train-seed"),
    momentum: byId("train-optimizer").value === "momentum" ? 0.9 : 0, bug: byId("train-bug").value,
  };
}

/** Fills the settings of a network's training. */
function fillSettings(layers) {
  const fill = (id, values) => byId(id).append(...values.map((value) => element("option", { text: String(value), value })));
  fill("train-rate", TRAIN_RATES);
  fill("train-batch", BATCHES);
  fill("train-optimizer", ["sgd", "momentum"]);
  fill("train-speed", Object.keys(SPEEDS));
  fill("train-bug", ["none", ...Object.keys(BUGS)]);
  offerBugs(layers);
  byId("train-rate").value = { mse: "3", half_mse: "0.3" }[RUN.loss] ?? "0.1"; // mse divides by the number of classes.
  byId("train-batch").value = "32";
}

/** Offers the wrong backward passes of the kinds of these layers. */
function offerBugs(layers) {
  const kinds = new Set(layers.map(({ kind }) => kind)), select = byId("train-bug");
  for (const option of select.options) {
    const { kind } = BUGS[option.value] ?? {};
    option.hidden = option.disabled = kind !== undefined && !kinds.has(kind);
  }
  if (select.selectedOptions[0].disabled) select.value = "none";
}

function translateSettings() {
  const names = (id, key) => { for (const option of byId(id).options) option.textContent = say(`${key}_${option.value}`); };
  names("train-optimizer", "optimizer");
  names("train-speed", "speed");
  names("train-bug", "bug");
}

/** The points of a curve, {steps, loss, accuracy}, and one more; if there are too many, every other one. */
function withPoint(points, point) {
  const more = [...points, point];
  return more.length > MOST_POINTS ? more.filter((_, n) => n % 2 === 0) : more;
}

/** Accuracy and loss over the steps; the accuracy of the training before in grey. */
function drawTraining(svg, points, former) {
  const make = drawer(svg), both = [...points, ...former];
  svg.replaceChildren();
  const last = Math.max(1, ...both.map(({ steps }) => steps));
  const top = Math.max(0.5, ...points.slice(0, 1).map(({ loss }) => 1.2 * loss));
  const x = (steps) => 34 + (262 * steps) / last, y = (share) => 120 - 105 * Math.max(0, Math.min(1, share));
  const line = (shown, value, name) => make("polyline",
    { points: shown.filter((point) => Number.isFinite(value(point))).map((point) => `${x(point.steps).toFixed(1)},${y(value(point)).toFixed(1)}`).join(" "), class: name });
  make("line", { x1: 34, x2: 296, y1: 120, y2: 120, class: "axis" });
  make("line", { x1: 34, x2: 34, y1: 15, y2: 120, class: "axis" });
  line(former, ({ accuracy }) => accuracy, "former");
  line(points, ({ loss }) => loss / top, "others");
  line(points, ({ accuracy }) => accuracy, "own");
  const names = ["own", "others", ...(former.length ? ["former"] : [])], texts = ["trainAccuracy", "trainLoss", "trainFormer"];
  const lefts = [34, 102, 202]; // The first text is short, and the last must end before 320.
  names.forEach((name, n) => {
    make("line", { x1: lefts[n], x2: lefts[n] + 14, y1: 6, y2: 6, class: name });
    make("text", { x: lefts[n] + 18, y: 9 }, say(texts[n]));
  });
  for (const share of [0, 0.5, 1]) make("text", { x: 30, y: y(share) + 3, "text-anchor": "end" }, `${100 * share} %`);
  make("text", { x: 300, y: 123 }, "0");
  make("text", { x: 300, y: 18 }, digits(top, 2));
  make("text", { x: 34, y: 132, "text-anchor": "middle" }, "0");
  make("text", { x: 296, y: 132, "text-anchor": "end" }, count(last));
  make("text", { x: 165, y: 144, "text-anchor": "middle" }, say("trainSteps"));
}
