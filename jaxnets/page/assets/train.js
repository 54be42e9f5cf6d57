"use strict";
// Training in the page: what the worker of trainer.js reports, drawn while it learns.

let worker = null, loading = null; // The worker, once it has the pictures; the promise of it.
let beginning = null; // The promise that the training has begun; null without one.
let running = false, hiddenWhileRunning = false;
let training = 0; // The number of the training: reports of an earlier one come too late.
let trained = null; // The last report of the worker.
let trainedPoints = [], formerPoints = []; // {steps, loss, accuracy}: of this training and of the one before.
let learnedMaps = []; // The heat maps of the first layer with weights, and of their gradient.

/** The worker, which runs this page's own scripts: by their address, or from the text in the one file. */
function makeWorker() {
  const parts = ["run.js", "network.js", "trainer.js"].map((name) => document.querySelector(`script[data-file="${name}"]`));
  if (!parts[0]) return new Worker("trainer.js");
  return new Worker(URL.createObjectURL(new Blob(parts.map((part) => part.textContent), { type: "text/javascript" })));
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
  if (number !== training) return; // A button pressed later was quicker.
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
    trainedPoints = withPoint(trainedPoints, tested);
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
  drawTraining(byId("train-curve").querySelector("svg"), trainedPoints, formerPoints);
  const n = state.network.layers.findIndex((layer) => layer.kernel);
  learnedMaps.forEach((map, which) => map.draw([weights, gradient][which][n].kernel));
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
  translateSettings();
  learnedMaps.forEach((map) => map.caption());
  renderTraining();
}

function initTraining() {
  byId("train").hidden = !PRACTICE?.count;
  if (!PRACTICE?.count) return;
  const { layers } = state.network, n = layers.findIndex((layer) => layer.kernel);
  fillSettings(layers);
  const shape = weightsShape(layers[n]);
  learnedMaps = ["W", "dW"].map((view) => heatMap({
    shape, drawn: drawnShape(layers[n], view, shape), title: () => say(`view_${view}`), name: (index) => named(view, shape, index), choose: () => {},
  }));
  byId("train-maps").append(...learnedMaps.map((map) => map.element));
  byId("train-start").addEventListener("click", () => (running ? pauseTraining() : startTraining()));
  byId("train-step").addEventListener("click", stepTraining);
  byId("train-leave").addEventListener("click", resetWeights);
  for (const id of RESTARTING) {
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
