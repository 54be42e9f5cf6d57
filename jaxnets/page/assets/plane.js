"use strict";
// A network on a plane: its answer at every point, while it learns by the passes of trainer.js.

const GRID = 48; // Places along a side where the network is evaluated.
const STRETCH = 12; // Milliseconds of steps between two pictures.
const NEAR = 0.03; // A share of the side: within it a click removes a point.
const MOST_DEVIATIONS = 6; // From the mean to the side: points farther out are not shown.
const CLASS_COLOURS = ["c1", "c2", "c3", "c4", "c5", "c6"], CORNERS = [24, 4, 3, 5, 6, 8]; // Of a class's marks.
const HIDDEN = ["", "2", "3", "4", "8", "8, 8", "16, 16"], ACTIVATIONS = ["relu", "tanh", "sigmoid"];
const DATA = PRACTICE?.sets ?? {}, OWN = "own";

const runsNetwork = readNetwork(RUN), classes = RUN.classNames.length;
const scaling = runsNetwork.layers.find(({ kind }) => kind === "normalize") ?? { mean: [0, 0], std: [1, 1] };
const deviations = Math.min(MOST_DEVIATIONS, Math.max(2, ...Object.values(DATA).flatMap(({ points }) =>
  points.flatMap((point) => point.map((value, axis) => (1.05 * Math.abs(value - scaling.mean[axis])) / scaling.std[axis])))));

const state = {
  network: runsNetwork,
  points: [], // {at: [x1, x2], label, held}; held-out points are not trained on.
  tool: 0, // The class of a new point; "remove" takes points away.
  cursor: [0.5, 0.5], // Of the keys: shares of the side, from the left and from the top.
  unit: null, // The chosen hidden unit: {n, k}, of layer n.
  loss: null, begun: false, running: false,
  curve: [], former: [], // {steps, loss, accuracy}: of this training and of the one before.
};
const trainer = new Trainer(runsNetwork, examplesOf([]));
let field = []; // The passes at GRID x GRID places, row by row from the top.
let steppedAt = 0; // When the last step was made.
let themeColours = {}; // By their names, of the theme that is seen.
const small = element("canvas", { width: GRID, height: GRID }); // A pixel for each place.

// ---- The plane ----

/** The numbers (x1, x2) of a place: shares of the side, from the left and from the top. */
function pointAt([across, down]) {
  return [2 * across - 1, 1 - 2 * down].map((value, axis) => scaling.mean[axis] + deviations * scaling.std[axis] * value);
}

function placeOf(point) {
  const [across, up] = point.map((value, axis) => (value - scaling.mean[axis]) / (deviations * scaling.std[axis]));
  return [(across + 1) / 2, (1 - up) / 2];
}

/** What a trainer takes: the points to train on first. */
function examplesOf(points) {
  const trained = points.filter(({ held }) => !held), all = [...trained, ...points.filter(({ held }) => held)];
  return { images: Float64Array.from(all.flatMap(({ at }) => at)), labels: all.map(({ label }) => label), count: trained.length };
}

function takePoints(points) {
  state.points = points;
  trainer.take(examplesOf(points));
  for (const id of ["train-start", "train-step"]) byId(id).disabled = trainer.count === 0;
  if (trainer.count === 0) state.running = false;
}

function loadData() {
  const { points, labels, count } = DATA[byId("data").value] ?? { points: [], labels: [], count: 0 };
  takePoints(points.map((at, n) => ({ at, label: labels[n], held: n >= count })));
}

/** The point next to a place, if one is near. */
function pointNear(place) {
  const far = (point) => Math.hypot(...placeOf(point.at).map((share, axis) => share - place[axis]));
  const [next] = [...state.points].sort((one, other) => far(one) - far(other));
  return next && far(next) <= NEAR ? next : null;
}

/** Adds a point at a place, or removes the one that is near. */
function act(place, tool = state.tool) {
  const near = pointNear(place), values = { place: pointAt(place).map((value) => digits(value, 3)).join(", ") };
  if (tool !== "remove") takePoints([...state.points, { at: pointAt(place), label: tool, held: false }]);
  else if (near) takePoints(state.points.filter((point) => point !== near));
  const key = tool !== "remove" ? "pointAdded" : near ? "pointRemoved" : "pointNone";
  byId("live").textContent = say(key, { ...values, name: RUN.classNames[tool], count: count(state.points.length) });
  render();
}

// ---- The network ----

/** A network like the run's with other hidden layers. */
function networkOf(sizes, activation) {
  const layers = runsNetwork.layers.filter(({ kind }) => kind === "normalize");
  let size = 2;
  const add = (layer, outputs) => {
    layers.push({ ...layer, sources: [layers.length], depth: 0, inShape: [size], outShape: [outputs] });
    size = outputs;
  };
  const addDense = (name, outputs) => {
    const shapes = { kernel: [size, outputs], bias: [outputs] };
    const arrays = Object.fromEntries(Object.entries(shapes).map(([part, shape]) => [part, new Float64Array(product(shape))]));
    add({ kind: "dense", name, shapes, ...arrays }, outputs);
  };
  sizes.forEach((outputs, n) => {
    addDense(`hidden${n + 1}`, outputs);
    add({ kind: activation }, outputs);
  });
  addDense("logits", classes);
  return { ...runsNetwork, layers };
}

/** The chosen network; its weights are still to be drawn. */
function chosenNetwork() {
  const hidden = byId("hidden").value;
  if (hidden === OWN) return runsNetwork;
  return networkOf(hidden.split(",").map(Number).filter(Boolean), byId("activation").value);
}

/** The places of the layers whose units are shown: those with weights, except the last one. */
function hiddenLayers() {
  return state.network.layers.map((layer, n) => n).filter((n) => state.network.layers[n].kernel).slice(0, -1);
}

/** z of a unit of the first hidden layer: its factors of x1 and x2, and its constant. */
function lineOf({ n, k }) {
  const layer = state.network.layers[n], units = layer.outShape[0];
  const factors = [0, 1].map((axis) => layer.kernel[axis * units + k] / scaling.std[axis]);
  const bias = layer.bias?.[k] ?? (layer.ones ? layer.kernel[2 * units + k] : 0);
  return [...factors, bias - factors[0] * scaling.mean[0] - factors[1] * scaling.mean[1]];
}

// ---- Training ----

function begin() {
  if (state.curve.length > 1) state.former = state.curve;
  state.network = fresh(chosenNetwork(), chosen().seed);
  trainer.begin(state.network, chosen());
  Object.assign(state, { begun: true, loss: null, curve: [] });
  unitsChanged();
}

function start() {
  if (!state.begun) begin();
  state.running = true;
  render();
  requestAnimationFrame(train);
}

function train(now) {
  if (!state.running) return;
  const delay = SPEEDS[byId("train-speed").value], from = performance.now();
  if (delay === 0 || now - steppedAt >= delay) {
    steppedAt = now;
    do state.loss = trainer.step(); while (delay === 0 && performance.now() - from < STRETCH);
    render();
  }
  requestAnimationFrame(train);
}

function stepOnce() {
  state.running = false;
  if (!state.begun) begin();
  state.loss = trainer.step();
  render();
}

function again() {
  begin();
  render();
}

/** Brings the run's own network back. */
function leave() {
  Object.assign(state, { network: runsNetwork, begun: false, running: false, loss: null });
  byId("hidden").value = OWN;
  unitsChanged();
  render();
}

/** A new setting starts a new training, if one has begun. */
function settingChanged() {
  const { layers } = chosenNetwork();
  offerBugs(layers);
  byId("activation").disabled = [OWN, ""].includes(byId("hidden").value);
  if (state.begun || layers !== state.network.layers) begin();
  render();
}

// ---- Drawing ----

/** A colour of the theme as [red, green, blue]. */
function rgb(name) {
  if (!(name in themeColours)) {
    const text = getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
    themeColours[name] = [1, 3, 5].map((at) => parseInt(text.slice(at, at + 2), 16));
  }
  return themeColours[name];
}

/** Paints a picture of GRID x GRID numbers: `shade(n)` gives a colour, and its share over the card's. */
function paintField(canvas, shade) {
  const context = small.getContext("2d"), image = context.createImageData(GRID, GRID);
  const card = rgb("card");
  for (let n = 0; n < GRID * GRID; n++) {
    const [colour, share] = shade(n);
    for (let c = 0; c < 3; c++) image.data[4 * n + c] = card[c] + share * (colour[c] - card[c]);
    image.data[4 * n + 3] = 255;
  }
  context.putImageData(image, 0, 0);
  canvas.getContext("2d").drawImage(small, 0, 0, canvas.width, canvas.height);
}

/** The line on which numbers on the grid are 0, in pieces between the places: [[x, y], [x, y]], shares of the side. */
function zeroLine(valueAt) {
  const pieces = [], values = Array.from({ length: GRID * GRID }, (_, n) => valueAt(n));
  for (let i = 0; i < GRID - 1; i++) for (let j = 0; j < GRID - 1; j++) {
    const corners = [[i, j], [i, j + 1], [i + 1, j + 1], [i + 1, j]], cuts = [];
    corners.forEach(([row, column], n) => {
      const [otherRow, otherColumn] = corners[(n + 1) % 4];
      const value = values[row * GRID + column], other = values[otherRow * GRID + otherColumn];
      if (value > 0 === other > 0) return;
      const share = value / (value - other);
      cuts.push([column + share * (otherColumn - column), row + share * (otherRow - row)].map((at) => (at + 0.5) / GRID));
    });
    for (let n = 0; n + 1 < cuts.length; n += 2) pieces.push([cuts[n], cuts[n + 1]]);
  }
  return pieces;
}

function strokeLine(context, pieces, colour, width, dash = []) {
  const side = context.canvas.width;
  context.beginPath();
  for (const [from, to] of pieces) {
    context.moveTo(...from.map((share) => side * share));
    context.lineTo(...to.map((share) => side * share));
  }
  context.setLineDash(dash);
  context.strokeStyle = `rgb(${rgb(colour)})`;
  context.lineWidth = width;
  context.stroke();
  context.setLineDash([]);
}

/** The numbers of a unit: z, or its ReLU. */
function unitField({ n, k }) {
  const place = state.network.layers[n + 1]?.kind === "relu" ? n + 2 : n + 1;
  return field.map(({ values }) => values[place][k]);
}

/** Colours for numbers above and below 0. */
function shadeOf(values) {
  const largest = Math.abs(values[largestAt(values)]) || 1, [above, below] = [rgb("c2"), rgb("c1")];
  return (n) => [values[n] > 0 ? above : below, 0.75 * (Math.abs(values[n]) / largest) ** 0.6];
}

function paintPlane() {
  const canvas = byId("plane"), context = canvas.getContext("2d"), { unit, points, cursor } = state;
  if (unit) paintField(canvas, shadeOf(unitField(unit)));
  else {
    const colours = RUN.classNames.map((_, k) => rgb(CLASS_COLOURS[k]));
    paintField(canvas, (n) => {
      const { p } = field[n], best = largestAt(p);
      return [colours[best], Number.isFinite(p[best]) ? 0.1 + (0.5 * (p[best] - 1 / classes)) / (1 - 1 / classes) : 0];
    });
    const [first] = hiddenLayers();
    if (first !== undefined && byId("lines").checked) {
      for (let k = 0; k < state.network.layers[first].outShape[0]; k++) {
        strokeLine(context, zeroLine((n) => field[n].values[first + 1][k]), "soft", 1.5, [6, 5]);
      }
    }
    for (let k = 1; k < classes; k++) { // Where a class and the best of the others are equally probable.
      strokeLine(context, zeroLine((n) => field[n].p[k] - Math.max(...field[n].p.filter((_, other) => other !== k))), "ink", 3);
    }
  }
  if (unit) strokeLine(context, zeroLine((n) => field[n].values[unit.n + 1][unit.k]), "ink", 4);
  points.forEach((point) => paintPoint(context, point));
  if (canvas.matches(":focus-visible")) paintCursor(context, cursor);
}

function paintPoint(context, { at, label, held }) {
  paintMark(context, placeOf(at).map((share) => share * context.canvas.width), label, held);
}

/** A mark for each class, with a given number of corners; held-out points are hollow. */
function paintMark(context, [x, y], label, held = false) {
  const corners = CORNERS[label];
  context.beginPath();
  for (let n = 0; n < corners; n++) {
    const angle = (2 * Math.PI * (n + (corners === 4 ? 0.5 : 0))) / corners - Math.PI / 2;
    context.lineTo(x + 7 * Math.cos(angle), y + 7 * Math.sin(angle));
  }
  context.closePath();
  const colour = `rgb(${rgb(CLASS_COLOURS[label])})`, card = `rgb(${rgb("card")})`;
  context.fillStyle = held ? card : colour;
  context.strokeStyle = held ? colour : card;
  context.lineWidth = held ? 2.5 : 1.5;
  context.fill();
  context.stroke();
}

function paintCursor(context, place) {
  const [x, y] = place.map((share) => share * context.canvas.width);
  for (const [colour, width] of [["card", 6], ["ink", 2.5]]) {
    context.beginPath();
    for (const [dx, dy] of [[1, 0], [-1, 0], [0, 1], [0, -1]]) {
      context.moveTo(x + 6 * dx, y + 6 * dy);
      context.lineTo(x + 18 * dx, y + 18 * dy);
    }
    context.strokeStyle = `rgb(${rgb(colour)})`;
    context.lineWidth = width;
    context.stroke();
  }
}

/** Makes the buttons of the units again, for example when the network has changed. */
function unitsChanged() {
  state.unit = null;
  byId("unit-maps").replaceChildren(...hiddenLayers().map((n, layer) => {
    const units = Array.from({ length: state.network.layers[n].outShape[0] }, (_, k) => {
      const button = element("button", { type: "button", "aria-pressed": "false", "data-layer": n, "data-unit": k });
      button.append(element("canvas", { width: GRID, height: GRID, "aria-hidden": "true" }));
      button.addEventListener("click", () => {
        state.unit = state.unit?.n === n && state.unit.k === k ? null : { n, k };
        render();
      });
      return button;
    });
    return element("div", { className: "units", role: "group", "data-number": layer + 1 }, element("h3"), ...units);
  }));
  translateUnits();
}

function translateUnits() {
  for (const group of byId("unit-maps").children) {
    const layer = group.dataset.number, title = say("unitsOf", { layer });
    group.firstElementChild.textContent = title;
    group.setAttribute("aria-label", title);
    group.querySelectorAll("button").forEach((button, k) => button.setAttribute("aria-label", say("unitOf", { layer, unit: k + 1 })));
  }
}

function paintUnits() {
  for (const button of byId("unit-maps").querySelectorAll("button")) {
    const unit = { n: Number(button.dataset.layer), k: Number(button.dataset.unit) };
    paintField(button.firstElementChild, shadeOf(unitField(unit)));
    button.setAttribute("aria-pressed", String(state.unit?.n === unit.n && state.unit.k === unit.k));
  }
}

/** What the chosen unit computes. */
function unitText() {
  const { unit, network } = state, [first] = hiddenLayers();
  if (first === undefined) return say("unitsNone");
  if (!unit) return "";
  const name = { layer: hiddenLayers().indexOf(unit.n) + 1, unit: unit.k + 1 };
  const [a, b, c] = lineOf(unit), term = (value) => `${value < 0 ? "−" : "+"} ${digits(Math.abs(value), 3)}`;
  const sum = `${digits(a, 3)} x₁ ${term(b)} x₂ ${term(c)}`;
  const text = say(unit.n === first ? "unitFirst" : "unitDeep", { ...name, sum });
  return network.layers[unit.n + 1]?.kind === "relu" ? `${text}${language === "zh" ? "" : " "}${say("unitRelu")}` : text;
}

/** How many of some points the network gets right. */
function rightOf(points) {
  return points.filter(({ at, label }) => largestAt(forward(state.network, Float64Array.from(at)).p) === label).length;
}

function renderStatus() {
  const { points, begun, loss, running, curve, former } = state;
  const held = points.filter((point) => point.held), trained = points.filter((point) => !point.held);
  const values = { steps: count(begun ? trainer.steps : RUN.step), loss: loss === null ? "–" : digits(loss) };
  Object.assign(values, { right: rightOf(trained), all: trained.length, rightHeld: rightOf(held), held: held.length });
  const diverged = begun && loss !== null && !Number.isFinite(loss);
  byId("train-now").textContent = say(diverged ? "planeDiverged" : begun ? "planeNow" : "planeRun", values);
  byId("train-start").textContent = say(running ? "trainPause" : begun && trainer.steps ? "trainGo" : "trainStart");
  const tested = held.length ? values.rightHeld / held.length : values.right / trained.length;
  if (begun && loss !== null && trainer.steps !== curve.at(-1)?.steps) {
    state.curve = withPoint(curve, { steps: trainer.steps, loss, accuracy: tested });
  }
  byId("train-curve").hidden = state.curve.length < 2;
  drawTraining(byId("train-curve").querySelector("svg"), state.curve, former);
}

function render() {
  byId("labels").querySelectorAll("canvas").forEach((canvas, label) => paintMark(canvas.getContext("2d"), [10, 10], label));
  field = Array.from({ length: GRID * GRID }, (_, n) =>
    forward(state.network, Float64Array.from(pointAt([(n % GRID) + 0.5, Math.floor(n / GRID) + 0.5].map((at) => at / GRID)))));
  paintPlane();
  paintUnits();
  byId("unit").textContent = unitText();
  renderStatus();
}

function translate() {
  translateFixed();
  translateSettings();
  translateUnits();
  document.title = `${RUN.model} – ${say("planeTitle")}`;
  byId("about").textContent = say("planeAbout", { model: RUN.model });
  for (const option of byId("data").options) option.textContent = TEXTS[language][`data_${option.value}`] ?? option.value;
  for (const option of byId("hidden").options) option.textContent = { [OWN]: say("hiddenRun"), "": say("hiddenNone") }[option.value] ?? option.value;
  for (const option of byId("activation").options) option.textContent = say(`layer_${option.value}`);
  const [low, high] = [pointAt([0, 1]), pointAt([1, 0])].map((point) => point.map((value) => digits(value, 3)));
  byId("ranges").textContent = say("planeRanges", { left: low[0], right: high[0], bottom: low[1], top: high[1] });
  byId("labels").querySelectorAll("b").forEach((text, tool) => {
    const name = RUN.classNames[tool];
    text.textContent = name === undefined ? say("pointRemove") : say("pointOf", { name });
  });
  render();
}

/** The choice of what a click does: a point of a class, or its removal. */
function buildTools() {
  const tools = [...RUN.classNames.keys(), "remove"];
  byId("labels").append(...tools.map((tool) => {
    const input = element("input", { type: "radio", name: "tool", value: tool });
    input.checked = tool === state.tool;
    input.addEventListener("change", () => { state.tool = tool; });
    const text = element("b"), mark = tool === "remove" ? [] : [element("canvas", { width: 20, height: 20, "aria-hidden": "true" })];
    return element("label", {}, input, element("span", {}, ...mark, text));
  }));
}

function onKey(event) {
  const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }, move = moves[event.key];
  const label = Number(event.key) - 1;
  if (move) state.cursor = state.cursor.map((share, axis) => Math.max(0, Math.min(1, share + (event.shiftKey ? 0.1 : 0.02) * move[axis])));
  else if (event.key === "Enter" || event.key === " ") act(state.cursor);
  else if (event.key === "Delete" || event.key === "Backspace") act(state.cursor, "remove");
  else if (label in RUN.classNames) act(state.cursor, label);
  else return;
  event.preventDefault();
  paintPlane();
}

function initPlane() {
  const fill = (id, values) => byId(id).append(...values.map((value) => element("option", { value, text: value })));
  fill("data", [...Object.keys(DATA), OWN]);
  fill("hidden", [OWN, ...HIDDEN]);
  fill("activation", ACTIVATIONS);
  fillSettings(runsNetwork.layers);
  buildTools();
  loadData();
  unitsChanged();
  byId("activation").disabled = true;
  const canvas = byId("plane");
  canvas.addEventListener("click", (event) => {
    const { left, top, width, height } = canvas.getBoundingClientRect();
    act([(event.clientX - left) / width, (event.clientY - top) / height]);
  });
  canvas.addEventListener("keydown", onKey);
  for (const change of ["focus", "blur"]) canvas.addEventListener(change, paintPlane);
  for (const id of ["data", "points-again"]) byId(id).addEventListener(id === "data" ? "change" : "click", () => {
    loadData();
    if (state.begun) begin();
    render();
  });
  byId("train-start").addEventListener("click", () => {
    if (!state.running) return start();
    state.running = false;
    render();
  });
  byId("train-step").addEventListener("click", stepOnce);
  byId("train-again").addEventListener("click", again);
  byId("train-leave").addEventListener("click", leave);
  byId("lines").addEventListener("change", render);
  for (const id of ["hidden", "activation", ...RESTARTING]) byId(id).addEventListener("change", settingChanged);
  initSwitches(translate, () => {
    themeColours = {};
    render();
  });
  translate();
}

initPlane();
