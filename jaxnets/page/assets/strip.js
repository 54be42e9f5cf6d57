"use strict";
// The strip: a card for each layer with its numbers forward, and its gradients backward.

let cards = [];

/** The title of a card; n = -1 is the picture, n = the number of layers is the loss. */
function layerTitle(n) {
  const layer = state.network.layers[n];
  if (n < 0) return say("layer_input");
  if (!layer) return say("layer_loss");
  const [rows, columns] = layer.shapes?.kernel ?? [];
  const key = `layer_${layer.kind}`, own = [layer.name, layer.kind].filter(Boolean).join(": ");
  const title = key in TEXTS.en ? say(key, { ...layer, rows, columns }) : own;
  return layer.branch === "shortcut" && !layer.name ? say("inShortcut", { title }) : title;
}

/** The views of a card: [name, shape, the array in the present state, whether it is a gradient]. */
function viewsOf(n) {
  const { network } = state, last = network.layers.length, layer = network.layers[n];
  if (n < 0) {
    return [["x", network.imageShape, () => state.pass?.values[0]], ["dx", network.imageShape, () => state.back?.d[0], true]];
  }
  if (!layer) {
    const shape = [state.classNames.length];
    return [["p", shape, () => state.pass?.p], ["dz", shape, () => state.back?.d[last], true]];
  }
  const views = layer.kind === "fork" ? [] : [["y", layer.outShape, () => state.pass?.values[n + 1]]];
  const gradient = (name) => () => state.back?.gradients[n][name];
  const now = () => state.network.layers[n], { isPlain, mask, winners } = KINDS[layer.kind];
  if (layer.kernel) {
    const shape = weightsShape(layer), cut = product(shape);
    views.push(["W", shape, () => now().kernel]);
    views.push(["dW", shape, gradient("kernel"), true]);
    if (layer.ones) views.push(["db", layer.outShape, () => gradient("kernel")()?.subarray(cut), true]);
    if (layer.bias) views.push(["db", layer.shapes.bias, gradient("bias"), true]);
  }
  if (layer.scale) {
    const { scale, bias } = layer.shapes, learns = (name) => !layer.fixed?.includes(name);
    if (learns("scale")) views.push(["scale", scale, () => now().scale], ["dscale", scale, gradient("scale"), true]);
    if (bias && learns("bias")) views.push(["dshift", bias, gradient("bias"), true]);
  }
  if (mask) views.push(["mask", layer.outShape, () => state.back && state.pass.values[layer.sources[0]].map((x) => mask(layer, x)), true]);
  if (winners) views.push(["winners", layer.inShape, () => state.back && winnersOf(n), true]);
  const isFirst = n === firstLayer(network); // Its dX is the picture's.
  if (!isFirst && !isPlain && layer.kind !== "add") views.push(["dx", layer.inShape, () => state.back?.inputs[n], true]);
  return views;
}

/** How many windows each number has won. */
function winnersOf(n) {
  const won = new Float64Array(product(state.network.layers[n].inShape));
  for (const place of state.pass.caches[n]) won[place]++;
  return won;
}

/** The shape in which an array of a layer is drawn: that of the image if the row of numbers was one. */
function drawnShape(layer, view, shape) {
  const above = state.network.layers[layer?.sources[0] - 1];
  if (above?.kind !== "flatten") return shape;
  if (view === "dx") return above.inShape;
  const fromImage = above.sources[0] === 0 && layer.kernel && shape.length === 2;
  return fromImage ? [...above.inShape, shape[1]] : shape;
}

/** The colour views in addition to `viewsOf`: of the picture, and of the first kernel, on red, green and blue. */
function colourViewsOf(n) {
  const { network } = state, layer = network.layers[n], first = network.layers.findIndex(({ kernel }) => kernel);
  if (network.imageShape[2] !== 3 || (n >= 0 && n !== first)) return [];
  if (n < 0) return [["x", network.imageShape, () => state.pass?.values[0]]];
  const shape = drawnShape(layer, "W", weightsShape(layer));
  if (shape.length !== 4 || shape[2] !== 3) return [];
  return [["W", shape, () => state.network.layers[n].kernel], ["dW", shape, () => state.back?.gradients[n].kernel, true]];
}

function buildStrip() {
  const strip = byId("strip");
  cards = [];
  for (let n = -1; n <= state.network.layers.length; n++) cards.push(buildCard(n));
  strip.replaceChildren(...cards.map((card) => card.element));
}

function buildCard(n) {
  const head = element("h3"), ahead = element("div", { className: "ahead" }), behind = element("div", { className: "behind" });
  const forwardTitle = element("h4"), backwardTitle = element("h4"), forwardText = element("p", { className: "formula" });
  const backwardText = element("div", { className: "formula" }), waiting = element("p", { className: "hint" });
  ahead.append(forwardTitle, forwardText);
  behind.append(backwardTitle, backwardText, waiting);
  const { network } = state, layer = network.layers[n], kind = layer ? layer.kind : network.loss;
  const formulas = formulasOf(layer ?? (n < 0 ? "input" : kind)), plain = Boolean(KINDS[kind]?.isPlain);
  const maps = plain ? [] : viewsOf(n).map(([view, shape, array, isGradient = false]) => {
    const symbols = { y: layer?.kernel ? "z" : "y", x: "X", W: "W", dW: "dW", db: "db", dx: "dX", scale: "γ", dscale: "dγ", dshift: "dβ" };
    const isClass = view === "p" || view === "dz";
    const map = heatMap({
      shape,
      drawn: drawnShape(layer, view, shape),
      title: () => say(`view_${view}`),
      name: (index) => isClass ? `${view}[${state.classNames[index]}]` : named(symbols[view] ?? say(`view_${view}`).split(/[:：]/)[0], shape, index),
      choose: (index, focus) => showCell(n, view, index, map, focus),
    });
    map.element.dataset.view = view;
    (isGradient ? behind : ahead).append(map.element);
    return { view, map, array, isGradient, drawn: null };
  });
  for (const [view, shape, array, isGradient = false] of colourViewsOf(n)) {
    const map = colourMap({ shape, title: () => say(`colour_${view}`) });
    (isGradient ? behind : ahead).append(map.element);
    maps.push({ view: `${view} in colour`, map, array, isGradient, drawn: null });
  }
  const card = {
    n, maps,
    element: element("li", { className: plain ? "card plain" : "card", id: `layer-${n < 0 ? "picture" : n}`, "data-layer": n }, head, ahead, behind),
    translate() {
      head.textContent = layerTitle(n);
      forwardTitle.textContent = say("forward");
      backwardTitle.textContent = say("backward");
      const hasBias = layer?.bias || layer?.ones;
      const forwardFormula = formulas.y ?? formulas.p ?? formulas.x ?? "";
      const backwardFormulas = ["dz", "dW", "db", "dscale", "dshift", "dx"].filter((view) => formulas[view] && (view !== "db" || hasBias));
      forwardText.replaceChildren(...formulaNodes(layer?.kernel && !hasBias ? forwardFormula.replaceAll(/ \+ b(\[k\])?/g, "") : forwardFormula));
      backwardText.replaceChildren(...backwardFormulas.map((view) => element("p", {}, ...formulaNodes(formulas[view]))));
      waiting.textContent = say("needsTruth");
      maps.forEach(({ map }) => map.caption());
    },
    draw() {
      for (const each of maps) {
        const values = each.array();
        each.map.element.hidden = !values;
        if (values && values !== each.drawn) each.map.draw(values);
        each.drawn = values;
      }
      card.element.classList.toggle("lit", Boolean(state.back));
      waiting.hidden = Boolean(state.back) || plain;
    },
  };
  // Without gradients, two forward pictures are side by side.
  card.element.classList.toggle("wide", maps.filter(({ isGradient }) => !isGradient).length > 1);
  card.element.style.setProperty("--depth", layer?.depth ?? 0);
  card.translate();
  return card;
}

/** Draws the changed numbers. */
function drawStrip() {
  cards.forEach((card) => card.draw());
}

/** Redraws everything, for example when the colours change. */
function redrawStrip() {
  colours = null;
  for (const card of cards) for (const each of card.maps) each.drawn = null;
  drawStrip();
}

/** Lights up the cards one after the other, from the loss to the picture. */
function runBackwards() {
  if (matchMedia("(prefers-reduced-motion: reduce)").matches) return;
  cards.forEach((card, n) => {
    const behind = card.element.querySelector(".behind");
    behind.getAnimations().forEach((animation) => animation.cancel());
    behind.animate([{ opacity: 0, transform: "translateY(12px)" }, { opacity: 1, transform: "none" }],
      { duration: 400, delay: 120 * (cards.length - 1 - n), fill: "backwards" });
  });
}

/** The map of a view of layer n, for the tour. */
function mapOf(n, view) {
  return cards[n + 1].maps.find((each) => each.view === view)?.map;
}
