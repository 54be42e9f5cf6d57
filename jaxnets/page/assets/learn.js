"use strict";
// One step of gradient descent, its undoing, and the loss along the step.

const RATES = [0.0001, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10];
const MOST_STEPS = 20, MOST_KEPT = 1e7; // Steps that can be undone, and the weights that they keep in all.

let moved = null; // The last step: {before, after}, as `measured` gives them; or the key of a text.
let examples = null; // Each example's class and numbers.
let rightBefore = null; // How many of them were right before the first step.
let curvePoints = []; // {rate, own, others}: the losses along the step.
let curveTask = 0;

/** The example of each class, as the network sees it: a drawn one, or the run's own. */
function examplePictures() {
  if (!RUN.asDigits && !ownPictures) return [];
  examples ??= RUN.asDigits ? drawnExamples() : ownExamples().map(({ index, label }) =>
    ({ label, image: Float64Array.from(ownPicture(index), (byte) => byte / 255) }));
  return examples;
}

/** Drawn once, on its own paper. */
function drawnExamples() {
  return state.classNames.flatMap((name, label) => {
    if (!(name in EXAMPLES)) return [];
    const context = smallPaper();
    wipe(context);
    for (const points of EXAMPLES[name]) rounded(points).forEach((_, n, stroke) => n % 2 && ink(stroke.slice(0, n + 1), [context]));
    const pixels = toDigit(greyOf(context, PIXELS, PIXELS), false);
    return [{ label, image: Float64Array.from(pixels, (byte) => byte / 255) }];
  });
}

/** The results of the examples: the mean of their losses, and how many are right. */
function onExamples(network) {
  let loss = 0, right = 0;
  for (const { label, image } of examplePictures()) {
    const pass = forward(network, image);
    loss += lossOf(network, pass, label) / examplePictures().length;
    right += largestAt(pass.p) === label ? 1 : 0;
  }
  return { loss, right };
}

function rateNow() {
  return Number(byId("rate").value);
}

function measured() {
  const { right } = onExamples(state.network);
  return { loss: lossOf(state.network, state.pass, state.label), p: state.pass.p[state.label], right };
}

/** Runs the network with its new weights, forward and backward. */
function runAgain() {
  runForward();
  if (state.pass && state.label !== null) state.back = backward(state.network, state.pass, state.label);
}

function takeStep() {
  if (!state.back) return;
  const before = measured();
  if (!state.steps) rightBefore = before.right;
  state.undo.push(state.network);
  const most = Math.min(MOST_STEPS, Math.max(1, MOST_KEPT / weightsOf(state.network)));
  while (state.undo.length > most) state.undo.shift();
  state.steps++;
  state.network = stepped(state.network, state.back.gradients, rateNow());
  runAgain();
  moved = { before, after: measured() };
  render();
}

function undoStep() {
  if (!state.undo.length) return;
  state.network = state.undo.pop();
  state.steps--;
  runAgain();
  moved = "undone";
  render();
}

/** Restores the run's own weights after any steps or training. */
function resetWeights() {
  endTraining();
  state.network = runsNetwork;
  state.undo = [];
  state.steps = 0;
  runAgain();
  moved = "resetDone";
  render();
}

function renderLearning() {
  byId("step").disabled = !state.back;
  byId("undo").disabled = !state.undo.length;
  byId("reset").disabled = state.network === runsNetwork;
  const place = byId("moved");
  place.replaceChildren();
  if (typeof moved === "string") place.append(element("p", { text: say(moved) }));
  if (!state.back) place.append(element("p", { className: "hint", text: say("stepFirst") }));
  else if (moved && typeof moved === "object") place.append(movedTable(), verdictOf(moved));
  if (state.steps) place.append(element("p", { className: "hint", text: say("steps", { count: state.steps }) }));
}

function movedTable() {
  const head = ["", say("before"), say("after")].map((text) => element("th", { text, scope: "col" }));
  const row = (text, key, show) => element("tr", {}, element("th", { text, scope: "row" }),
    element("td", { text: show(moved.before[key]) }), element("td", { text: show(moved.after[key]) }));
  const body = element("tbody", {}, row(say("movedLoss"), "loss", digits),
    row(say("movedP", { name: state.classNames[state.label] }), "p", share));
  const all = examplePictures().length;
  if (all) body.append(row(say("movedExamples"), "right", (right) => `${right} / ${all}`));
  return element("table", {}, element("thead", {}, element("tr", {}, ...head)), body);
}

function verdictOf({ before, after }) {
  const change = after.loss - before.loss, small = Math.abs(change) < 1e-3 * Math.max(before.loss, 1e-6);
  let key = small ? "same" : change < 0 ? "better" : "worse";
  if (key !== "worse" && after.right < rightBefore) key = after.right < before.right ? "forgot" : "lost";
  const text = say(key, { right: after.right, all: examplePictures().length, own: rightBefore });
  return element("p", { className: key === "better" || key === "same" ? "good" : "bad", text });
}

const PIECE_TIME = 8; // Milliseconds of the curve's work at a stretch.

/** The losses after a step of each rate, in pieces of one forward pass. */
function* curveWork(network, pass, back, label) {
  for (const rate of [0, ...Array.from({ length: 16 }, (_, n) => 10 ** (-4 + n / 3))]) {
    const there = rate ? stepped(network, back.gradients, rate) : network;
    const own = lossOf(network, forward(there, pass.values[0]), label);
    let others = 0;
    yield;
    for (const { label: other, image } of examplePictures()) {
      others += lossOf(there, forward(there, image), other) / examples.length;
      yield;
    }
    curvePoints.push({ rate, own, others });
  }
}

/** Computes the curve, a few milliseconds at a time so that the page stays alive. */
function startCurve() {
  const task = ++curveTask, { network, pass, back, label } = state;
  curvePoints = [];
  byId("curve").hidden = !back;
  if (!back) return;
  const work = curveWork(network, pass, back, label);
  const next = () => {
    const from = performance.now();
    let done = false;
    while (task === curveTask && !done && performance.now() - from < PIECE_TIME) ({ done } = work.next());
    if (task !== curveTask) return; // There is something newer to draw.
    if (done) drawCurve();
    else setTimeout(next, 5);
  };
  setTimeout(next, 200);
}

function drawCurve() {
  const svg = byId("curve").querySelector("svg"), [now, ...points] = curvePoints;
  svg.replaceChildren();
  if (!points.length) return;
  const make = drawer(svg);
  const lines = examplePictures().length ? ["others", "own"] : ["own"];
  const top = 1.5 * Math.max(0.2, now.own, now.others);
  const x = (rate) => 42 + (265 * (Math.log10(rate) + 4)) / 5;
  const y = (loss) => 120 - (105 * Math.min(Number.isFinite(loss) ? loss : top, top)) / top;
  make("line", { x1: 42, x2: 307, y1: 120, y2: 120, class: "axis" });
  make("line", { x1: 42, x2: 42, y1: 15, y2: 120, class: "axis" });
  make("line", { x1: 42, x2: 307, y1: y(now.own), y2: y(now.own), class: "now" });
  make("text", { x: 46, y: y(now.own) - 3 }, say("curveNow"));
  for (const line of lines) {
    make("polyline", { points: points.map((point) => `${x(point.rate)},${y(point[line])}`).join(" "), class: line });
  }
  lines.forEach((line, n) => {
    make("line", { x1: 70 + 120 * n, x2: 86 + 120 * n, y1: 6, y2: 6, class: line });
    make("text", { x: 90 + 120 * n, y: 9 }, say(line === "own" ? "curveThis" : "curveExamples"));
  });
  for (const rate of [0.0001, 0.001, 0.01, 0.1, 1, 10]) make("text", { x: x(rate), y: 132, "text-anchor": "middle" }, String(rate));
  make("text", { x: 175, y: 146, "text-anchor": "middle" }, say("rate"));
  make("text", { x: 38, y: 20, "text-anchor": "end" }, digits(top, 2));
  make("text", { x: 38, y: 123, "text-anchor": "end" }, "0");
  make("text", { x: 12, y: 70, "text-anchor": "middle" }, "L");
  const distance = ({ rate }) => Math.abs(Math.log(rate / rateNow()));
  const here = points.reduce((best, point) => (distance(point) < distance(best) ? point : best));
  for (const line of lines) make("circle", { cx: x(here.rate), cy: y(here[line]), r: 4, class: "chosen" });
}

function initLearning() {
  for (const rate of RATES) byId("rate").append(element("option", { text: String(rate), value: rate }));
  byId("rate").value = "0.01";
  byId("rate").addEventListener("change", () => {
    drawCurve();
    renderCell();
    renderTour();
  });
  byId("step").addEventListener("click", takeStep);
  byId("undo").addEventListener("click", undoStep);
  byId("reset").addEventListener("click", resetWeights);
}
