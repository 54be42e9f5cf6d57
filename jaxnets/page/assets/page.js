"use strict";
// The page's state, and the functions that draw it.

const [HEIGHT, WIDTH, CHANNELS] = RUN.imageShape;
const SURE = 0.99; // With a larger p of the true class, gradients are invisible.
const runsNetwork = readNetwork(RUN); // With the run's weights.
const state = {
  network: runsNetwork, // Its weights move with "one step", and with training.
  classNames: RUN.classNames,
  undo: [], steps: 0, // The networks before the last steps, and the number of steps.
  pixels: null, // The picture's bytes, as the network sees them.
  label: null, // The true class.
  pass: null, back: null, // The numbers of the forward and the backward pass.
  time: { forward: null, backward: null },
};

/** Runs the network on the picture. */
function runForward() {
  state.back = null;
  state.pass = state.pixels && forward(state.network, Float64Array.from(state.pixels, (byte) => byte / 255));
}

/** The picture on the paper, as the network sees it; null if there is no ink. */
function prepared(grey) {
  if (grey.truth !== undefined) return grey.data; // One of the run's own.
  if (RUN.asDigits) return toDigit(grey, mayBeRuled());
  if (CHANNELS === 3 || photo) return toSquare(grey, WIDTH);
  return toSquare({ ...grey, data: grey.data.map((value) => 255 - value) }, WIDTH); // Drawn light on dark.
}

let frame = 0;

/** Reads the paper, at once or with the next frame; `time` is when the pen moved. */
function seeDrawing(time, now = false) {
  if (!now) {
    frame ||= requestAnimationFrame(() => {
      frame = 0;
      seeDrawing(time, true);
    });
    return;
  }
  const grey = onPaper(), pixels = grey && prepared(grey);
  byId("problem").textContent = grey && !pixels ? say("noInk") : "";
  state.pixels = pixels;
  if (!pixels) state.label = null;
  moved = null;
  runForward();
  if (!pixels || state.label === null) {
    render();
    state.time.forward = performance.now() - time;
  } else {
    renderForward();
    drawStrip();
    state.time.forward = performance.now() - time;
    renderBackward();
  }
  renderFacts();
  document.dispatchEvent(new CustomEvent("drawing", { detail: { pixels } }));
}

/** Sets the true class, and runs backwards. */
function chooseLabel(label) {
  state.label = label;
  moved = null;
  if (!state.pass) return render();
  renderBackward();
  renderFacts();
  runBackwards();
}

/** Whether the gradients are nearly 0: the network is sure of the class that was chosen as true. */
function isSure() {
  return state.back !== null && state.pass.p[state.label] > SURE;
}

/** The most probable class other than the one that was chosen as true. */
function nextBest() {
  return largestAt(state.pass.p.map((p, k) => (k === state.label ? 0 : p)));
}

/** Draws all that also depends on the true class. */
function renderGradients() {
  renderLabels();
  renderOffer();
  renderLearning();
  drawStrip();
  renderCell();
  renderTour();
  startCurve();
}

function renderBackward() {
  const start = performance.now();
  state.back = backward(state.network, state.pass, state.label);
  renderGradients();
  state.time.backward = performance.now() - start;
}

/** Draws everything that depends on the picture, the true class or the weights. */
function render() {
  renderForward();
  renderGradients();
}

function renderForward() {
  paintPixels(byId("seen"), state.pixels);
  const { pass, classNames } = state, best = pass ? largestAt(pass.p) : -1;
  const answer = pass ? say("answer", { name: classNames[best], p: share(pass.p[best]) }) : say("nothing");
  if (byId("answer").textContent !== answer) byId("answer").textContent = answer;
  for (const bars of document.querySelectorAll(".bars")) {
    [...bars.children].forEach((bar, k) => {
      const p = pass ? pass.p[k] : 0;
      bar.classList.toggle("best", k === best);
      bar.querySelector("i").style.width = `${100 * p}%`;
      bar.querySelector("span").textContent = pass ? p.toFixed(4) : "–";
    });
  }
}

function renderLabels() {
  byId("labels").querySelectorAll("input").forEach((input, k) => {
    input.checked = state.label === k;
    input.disabled = !state.pass;
  });
  const { back, pass, label, network, classNames } = state;
  byId("loss").textContent = !back ? (pass ? "" : say("lossFirst")) : say(`loss_${network.loss}`, {
    name: classNames[label], p: share(pass.p[label]), K: classNames.length, loss: digits(lossOf(network, pass, label)),
  });
}

function renderOffer() {
  const { classNames, label } = state, sure = isSure();
  byId("sure").hidden = !sure;
  byId("sure").replaceChildren();
  if (!sure) return;
  const button = element("button", { type: "button", id: "other", text: say("other", { name: classNames[nextBest()] }) });
  button.addEventListener("click", () => {
    chooseLabel(nextBest());
    byId("labels").querySelectorAll("input")[state.label].focus(); // The button is gone.
  });
  byId("sure").append(say("sure", { name: classNames[label] }), " ", button);
}

function renderFacts() {
  const { forward, backward } = state.time, round = (value) => (value === null ? "–" : value.toFixed(1));
  byId("facts").textContent = say(forward === null ? "factsNone" : "facts",
    { dtype: RUN.dtype, forward: round(forward), backward: round(backward) });
}

/** Puts all texts into the language of the page. */
function translate() {
  translateFixed();
  document.title = `${RUN.model} – ${say("title")}`;
  byId("about").textContent = say("about", { model: RUN.model, params: count(weightsOf(state.network)), steps: count(RUN.step) });
  const seen = say("seen", { size: (CHANNELS === 1 ? [HEIGHT, WIDTH] : RUN.imageShape).join(" × ") });
  byId("seen").setAttribute("aria-label", seen);
  byId("seen-text").textContent = seen;
  for (const option of byId("example").options) if (option.dataset.key) option.textContent = say(option.dataset.key);
  cards.forEach((card) => card.translate());
  translateTraining();
  renderContents();
  renderFacts();
  render();
}

/** The number of weights, biases and statistics. */
function weightsOf({ layers }) {
  return layers.flatMap(({ shapes }) => Object.values(shapes ?? {})).reduce((sum, shape) => sum + product(shape), 0);
}

function init() {
  Object.assign(byId("seen"), { width: WIDTH, height: HEIGHT });
  const allBars = document.querySelectorAll(".bars");
  allBars.forEach((bars) => bars.classList.toggle("many", state.classNames.length > 14)); // Then the best one comes first.
  state.classNames.forEach((name, k) => {
    allBars.forEach((bars) => bars.append(element("li", {}, element("b", { text: name }), element("div", {}, element("i")), element("span"))));
    const input = element("input", { type: "radio", name: "label", value: k });
    input.addEventListener("change", () => chooseLabel(k));
    byId("labels").append(element("label", {}, input, element("span", { text: name })));
  });
  initExamples();
  initSwitches(translate, redrawStrip);
  initPaper(seeDrawing);
  initCell();
  initLearning();
  initTraining();
  initTour();
  buildStrip();
  translate();
  initContents();
}

init();
