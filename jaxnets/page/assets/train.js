"use strict";
// Training in the page: what the worker of trainer.js reports, drawn while it learns.

const TRAIN_RATES = [0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3], BATCHES = [1, 8, 32, 128];
const SPEEDS = { full: 0, slow: 400 }; // Milliseconds between steps.
const MOST_POINTS = 300; // Of a curve.

let worker = null, loading = null; // The worker, once it has the pictures; the promise of it.
let beginning = null; // The promise that the training has begun; null without one.
let running = false, hiddenWhileRunning = false;
let training = 0; // The number of the training: reports of an earlier one come too late.
let trained = null; // The last report of the worker.
let trainedPoints = [], formerPoints = []; // {steps, loss, accuracy}: of this training and of the one before.
let learnedMaps = []; // The heat maps of the first layer with weights, and of their gradient.

/** The worker, which runs this page's own programs: by their address, or from the text in the one file. */
function makeWorker() {
  const parts = ["run.js", "network.js", "trainer.js"].map((name) => document.querySelector(`script[data-file="${name}"]`));
  if (!parts[0]) return new Worker("trainer.js");
  return new Worker(URL.createObjectURL(new Blob(parts.map((part) => part.textContent), { type: "text/javascript" })));
}

function chosen() {
  const number = (id) => Number(byId(id).value);
  return {
    rate: number("train-rate"), batch: number("train-batch"), seed: number("train-seed"),
    momentum: byId("train-optimizer").value === "momentum" ? 0.9 : 0, mistake: byId("train-mistake").value,
  };
}

async function loadWorker() {
  const made = makeWorker();
  made.onmessage = ({ data }) => showProgress(data);
  await unpackPictures();
  made.postMessage({ kind: "load", images: ownPictures, labels: PRACTICE.labels, count: PRACTICE.count });
  return made;
}

/** A training with fresh weights. */
async function beginTraining() {
  const number = ++training;
  trained = null;
  worker = await (loading ??= loadWorker());
  if (number !== training) return; // A later button was quicker.
  if (trainedPoints.length > 1) formerPoints = trainedPoints;
  trainedPoints = [];
  worker.postMessage({ kind: "begin", training, ...chosen() });
}

/** Begins a training if there is none; false if it has ended meanwhile. */
async function hasBegun() {
  const own = beginning ??= beginTraining();
  await own;
  return own === beginning;
}

async function startTraining() {
  running = true;
  renderTraining();
  if (await hasBegun() && running) worker.postMessage({ kind: "go", delay: SPEEDS[byId("train-speed").value] });
}

/** Stops, and then brings the whole page to the weights that have been learned. */
function pauseTraining() {
  running = false;
  if (beginning) worker?.postMessage({ kind: "pause" });
  renderTraining();
}

/** One step, forward and backward through the whole page. */
async function stepTraining() {
  running = false;
  if (await hasBegun()) worker.postMessage({ kind: "step" });
  renderTraining();
}

/** Takes a report of the worker: its weights become the page's. */
function showProgress(report) {
  if (report.training !== training) return;
  trained = report;
  const { weights, tested } = report;
  state.network = { ...state.network, layers: state.network.layers.map((layer, n) => ({ ...layer, ...weights[n] })) };
  [moved, state.undo, state.steps] = [null, [], 0]; // Steps were taken from other weights.
  if (tested.steps >= (trainedPoints.at(-1)?.steps ?? -1) + 1) {
    trainedPoints.push(tested);
    if (trainedPoints.length > MOST_POINTS) trainedPoints = trainedPoints.filter((_, n) => n % 2 === 0);
  }
  runForward();
  if (running) { // The strip and its gradients wait for the pause: they would hold up the pen.
    renderForward();
  } else {
    if (state.pass && state.label !== null) state.back = backward(state.network, state.pass, state.label);
    render();
  }
  renderTraining();
}

function renderTraining() {
  byId("train-start").textContent = say(running ? "trainPause" : trained ? "trainGo" : "trainStart");
  const { steps, epochs, loss, tested, size, weights, gradient } = trained ?? {};
  byId("train-now").textContent = !trained ? say("trainNone") : say(Number.isFinite(tested.loss) ? "trainNow" : "trainDiverged", {
    steps: count(steps), epochs: epochs.toFixed(1), loss: loss === null ? "–" : digits(loss),
    accuracy: (100 * tested.accuracy).toFixed(1), size: count(size),
  });
  byId("train-curve").hidden = !trained;
  if (!trained) return;
  drawTraining();
  const n = state.network.layers.findIndex((layer) => layer.kernel);
  learnedMaps.forEach((map, which) => map.draw([weights, gradient][which][n].kernel));
}

/** The held-out pictures' accuracy and loss over the steps; the training before in grey. */
function drawTraining() {
  const svg = byId("train-curve").querySelector("svg"), make = drawer(svg), both = [...trainedPoints, ...formerPoints];
  svg.replaceChildren();
  const last = Math.max(1, ...both.map(({ steps }) => steps));
  const top = Math.max(0.5, ...trainedPoints.slice(0, 1).map(({ loss }) => 1.2 * loss));
  const x = (steps) => 34 + (262 * steps) / last, y = (share) => 120 - 105 * Math.max(0, Math.min(1, share));
  const line = (points, value, name) => make("polyline",
    { points: points.filter((point) => Number.isFinite(value(point))).map((point) => `${x(point.steps).toFixed(1)},${y(value(point)).toFixed(1)}`).join(" "), class: name });
  make("line", { x1: 34, x2: 296, y1: 120, y2: 120, class: "axis" });
  make("line", { x1: 34, x2: 34, y1: 15, y2: 120, class: "axis" });
  line(formerPoints, ({ accuracy }) => accuracy, "former");
  line(trainedPoints, ({ loss }) => loss / top, "others");
  line(trainedPoints, ({ accuracy }) => accuracy, "own");
  const names = ["own", "others", ...(formerPoints.length ? ["former"] : [])], texts = ["trainAccuracy", "trainLoss", "trainFormer"];
  names.forEach((name, n) => {
    make("line", { x1: 40 + 96 * n, x2: 54 + 96 * n, y1: 6, y2: 6, class: name });
    make("text", { x: 58 + 96 * n, y: 9 }, say(texts[n]));
  });
  for (const share of [0, 0.5, 1]) make("text", { x: 30, y: y(share) + 3, "text-anchor": "end" }, `${100 * share} %`);
  make("text", { x: 300, y: 123 }, "0");
  make("text", { x: 300, y: 18 }, digits(top, 2));
  make("text", { x: 34, y: 132, "text-anchor": "middle" }, "0");
  make("text", { x: 296, y: 132, "text-anchor": "end" }, count(last));
  make("text", { x: 165, y: 144, "text-anchor": "middle" }, say("trainSteps"));
}

/** Stops for good; the next start begins with fresh weights. */
function endTraining() {
  pauseTraining();
  training++;
  trained = beginning = null;
  renderTraining();
}

function translateTraining() {
  if (!PRACTICE?.count) return;
  const held = PRACTICE.labels.length - PRACTICE.count;
  byId("train-text").textContent = say("trainText", { count: count(PRACTICE.count), held: count(held) });
  const names = (id, key) => { for (const option of byId(id).options) option.textContent = say(`${key}_${option.value}`); };
  names("train-optimizer", "optimizer");
  names("train-speed", "speed");
  names("train-mistake", "mistake");
  learnedMaps.forEach((map) => map.caption());
  renderTraining();
}

function initTraining() {
  byId("train").hidden = !PRACTICE?.count;
  if (!PRACTICE?.count) return;
  const { layers } = state.network, kinds = new Set(layers.map(({ kind }) => kind)), n = layers.findIndex((layer) => layer.kernel);
  const fill = (id, values) => values.forEach((value) => byId(id).append(element("option", { text: String(value), value })));
  fill("train-rate", TRAIN_RATES);
  fill("train-batch", BATCHES);
  fill("train-optimizer", ["sgd", "momentum"]);
  fill("train-speed", Object.keys(SPEEDS));
  fill("train-mistake", ["none", ...Object.keys(MISTAKES).filter((name) => kinds.has(MISTAKES[name].kind) || !MISTAKES[name].kind)]);
  byId("train-rate").value = { mse: "3", half_mse: "0.3" }[RUN.loss] ?? "0.1"; // mse divides by the number of classes.
  byId("train-batch").value = "32";
  const shape = weightsShape(layers[n]);
  learnedMaps = ["W", "dW"].map((view) => heatMap({
    shape, drawn: drawnShape(layers[n], view, shape), title: () => say(`view_${view}`), name: (index) => named(view, shape, index), choose: () => {},
  }));
  byId("train-maps").append(...learnedMaps.map((map) => map.element));
  byId("train-start").addEventListener("click", () => (running ? pauseTraining() : startTraining()));
  byId("train-step").addEventListener("click", stepTraining);
  byId("train-leave").addEventListener("click", resetWeights);
  for (const id of ["train-rate", "train-batch", "train-optimizer", "train-mistake", "train-seed"]) {
    byId(id).addEventListener("change", () => { // Another training, from fresh weights.
      if (!beginning) return;
      beginning = null;
      if (running) startTraining();
      else hasBegun();
    });
  }
  byId("train-speed").addEventListener("change", () => running && startTraining());
  document.addEventListener("visibilitychange", () => { // A hidden page computes nothing.
    if (document.hidden && running) {
      pauseTraining();
      hiddenWhileRunning = true;
    } else if (!document.hidden && hiddenWhileRunning) {
      hiddenWhileRunning = false;
      startTraining();
    }
  });
}
