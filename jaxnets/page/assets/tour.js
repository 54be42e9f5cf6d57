"use strict";
// The tour: a minute through the forward and the backward pass, with the picture's own numbers.

const TOUR_SECONDS = 6;

let tourStops = [], tourAt = -1, tourTimer = 0, tourRuns = false;

/** The stops for this network: [element to look at, text, cell to open]. */
function stopsOfTour() {
  const { network, classNames } = state, { layers } = network, stops = [], last = layers.length;
  const first = (test) => layers.findIndex(test), values = (n) => state.pass.values[n + 1];
  const stop = (n, key, facts = () => ({}), cell = null) => stops.push({ n, key, facts, cell });
  const opened = (n, view, array) => () => ({ n, view, index: largestAt(array()) });
  stop(-1, "tourPicture", () => {
    const picture = state.pass.values[0];
    return { all: count(picture.length), ink: count(picture.filter((v) => v > 0).length) };
  });
  const sum = first((layer) => layer.kernel), { shapes, name } = layers[sum];
  const terms = layers[sum].kind === "conv" ? product(shapes.kernel.slice(0, 3)) : product(layers[sum].inShape);
  stop(sum, "tourSum", () => {
    const z = values(sum);
    return { name, count: count(terms), value: digits(z[largestAt(z)]) };
  }, opened(sum, "y", () => values(sum)));
  const relu = first((layer) => layer.kind === "relu");
  if (relu >= 0) stop(relu, "tourRelu", () => ({ zeros: count(values(relu).filter((v) => v === 0).length), all: count(values(relu).length) }));
  const pool = first((layer) => layer.kind === "max_pool");
  if (pool >= 0) {
    const { window, inShape, outShape } = layers[pool];
    stop(pool, "tourPool", () => ({ window, before: count(product(inShape)), after: count(product(outShape)) }));
  }
  const best = () => largestAt(state.pass.p), label = () => classNames[state.label];
  stop(last - 1, "tourScores", () => ({ value: digits(values(last - 1)[best()]), name: classNames[best()] }));
  stop(last, "tourP", () => ({ name: classNames[best()], p: share(state.pass.p[best()]) }), () => ({ n: last, view: "p", index: best() }));
  stop(last, photo?.truth === state.label ? "tourTruth" : "tourLoss", () => ({ name: label(), loss: digits(lossOf(state.network, state.pass, state.label)) }));
  stop(last, "tourDz", () => {
    const value = state.back.d[last][state.label];
    return { name: label(), value: digits(value), direction: say(value > 0 ? "higher" : "lower") };
  }, () => ({ n: last, view: "dz", index: state.label }));
  const dW = () => state.back.gradients[sum].kernel;
  stop(sum, "tourDW", () => ({ value: digits(dW()[largestAt(dW())]) }), opened(sum, "dW", dW));
  stop(-1, "tourDx");
  stop("step", "tourStep", () => {
    const after = forward(stepped(state.network, state.back.gradients, rateNow()), state.pass.values[0]);
    return { rate: rateNow(), name: label(), before: share(state.pass.p[state.label]), after: share(after.p[state.label]) };
  });
  return stops;
}

/** On an empty paper: the run's picture that the network is least sure about, or else such an example. */
async function showDoubtful() {
  if (PRACTICE) {
    await showOwn();
    return chooseLabel(photo.truth);
  }
  const sureness = ({ label, image }) => forward(state.network, image).p[label];
  const [least] = examplePictures().map((each) => [sureness(each), each.label]).sort(([a], [b]) => a - b);
  if (!least) return;
  drawExample(state.classNames[least[1]]);
  seeDrawing(performance.now(), true);
  chooseLabel(least[1]);
}

/** If the network is sure of the true class, gradients are invisible: then the tour chooses another class. */
async function startTour() {
  if (!state.pass) await showDoubtful();
  if (!state.pass) return byId("paper").focus();
  if (state.label === null) chooseLabel(largestAt(state.pass.p));
  if (isSure()) chooseLabel(nextBest());
  tourStops = stopsOfTour();
  tourRuns = !matchMedia("(prefers-reduced-motion: reduce)").matches;
  byId("tour").hidden = false;
  document.body.classList.add("with-tour");
  showStop(0);
  byId("tour-text").focus({ preventScroll: true });
}

function showStop(at) {
  clearTimeout(tourTimer);
  document.querySelectorAll(".toured").forEach((each) => each.classList.remove("toured"));
  if (!state.back) return endTour(); // The paper was cleared.
  tourAt = at;
  const { n, cell } = tourStops[at];
  const target = n === "step" ? byId("learn") : cards[n + 1].element;
  target.classList.add("toured");
  if (cell) {
    const { n: layer, view, index } = cell(), map = mapOf(layer, view);
    showCell(layer, view, index, map);
    map.mark(index);
  } else if (chosenCell) closeCell();
  const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
  target.scrollIntoView({ block: innerWidth < 900 ? "start" : "center", behavior: calm ? "auto" : "smooth" });
  renderTour();
  if (tourRuns) tourTimer = setTimeout(() => (at + 1 < tourStops.length ? showStop(at + 1) : pauseTour()), 1000 * TOUR_SECONDS);
}

function renderTour() {
  if (byId("tour").hidden || !state.back) return;
  const { key, facts } = tourStops[tourAt];
  byId("tour-text").textContent = say(key, facts());
  byId("tour-count").textContent = `${tourAt + 1} / ${tourStops.length}`;
  byId("tour-pause").textContent = say(tourRuns ? "pause" : "go");
  byId("tour-back").disabled = tourAt === 0;
  byId("tour-next").disabled = tourAt + 1 === tourStops.length;
}

function pauseTour() {
  clearTimeout(tourTimer);
  tourRuns = false;
  renderTour();
}

function endTour() {
  clearTimeout(tourTimer);
  byId("tour").hidden = true;
  document.body.classList.remove("with-tour");
  document.querySelectorAll(".toured").forEach((each) => each.classList.remove("toured"));
  byId("tour-start").focus({ preventScroll: true });
}

function initTour() {
  byId("tour-start").addEventListener("click", startTour);
  byId("tour-end").addEventListener("click", endTour);
  byId("tour-pause").addEventListener("click", () => {
    if (tourRuns) return pauseTour();
    tourRuns = true;
    showStop(tourAt + 1 < tourStops.length ? tourAt + 1 : 0);
  });
  const move = (by) => {
    tourRuns = false;
    showStop(tourAt + by);
  };
  byId("tour-back").addEventListener("click", () => move(-1));
  byId("tour-next").addEventListener("click", () => move(1));
  byId("tour").addEventListener("keydown", (event) => {
    if (event.key === "Escape") endTour();
  });
}
