"use strict";
// The sum behind a number: its formula, its terms with their values, and how to check it.
//
// An explanation has: symbol, value, formula, anchor (in docs/backprop/), and either terms, the
// products [where, a, b] under the head [A, B], or lines [text, number]; extra are lines that are
// added to the products. `check` says which number a central difference moves.

const NETWORK = "lecture-network.md", LOSSES = "losses.md", NORMS = "norms-dropout.md";
const CONVOLUTION = "convolution.md", POOLING = "pooling.md", OTHERS = "activations.md";
// The headings of these pages in Chinese.
const CHINESE_ANCHORS = {
  "notation": "记号", "relu": "relu", "sigmoid": "sigmoid", "softmax": "softmax",
  "dense-layer": "全连接层", "the-slides-bias-a-column-of-ones": "课件的偏置一列全-1",
  "cross-entropy": "交叉熵", "squared-errors": "平方误差", "flatten": "展平", "dropout": "dropout",
  "convolution": "卷积", "max-pooling": "最大池化", "average-pooling": "平均池化",
  "global-average-pooling": "全局平均池化", "adaptive-average-pooling": "自适应平均池化",
  "batch-normalization": "批归一化", "layer-normalization": "层归一化",
  "local-response-normalization": "局部响应归一化", "leaky-relu": "leaky-relu", "tanh": "tanh",
  "gelu": "gelu",
};

/**
 * The explanation of the numbers of a layer or a loss: the derivation, the formulas of its views in the lecture's
 * symbols (some contain the layer's sizes), and a function that gives the sum behind a number. A layer
 * without an entry has none of them.
 */
const EXPLANATIONS = {
  dense: {
    anchor: `${NETWORK}#dense-layer`,
    formulas: {
      y: "z = X W + b:   z[k] = Σ_{d} X[d] · W[d, k] + b[k]",
      dW: "dW = Xᵀ dz:   dW[d, k] = X[d] · dz[k]",
      db: "db[k] = dz[k]",
      dx: "dX = dz Wᵀ:   dX[d] = Σ_{k} dz[k] · W[d, k]",
    },
    explain: explainDense,
  },
  dense_with_ones: {
    anchor: `${NETWORK}#the-slides-bias-a-column-of-ones`,
    formulas: onesFormulas,
    explain: explainDense,
  },
  conv: {
    anchor: `${CONVOLUTION}#convolution`,
    formulas: convolutionFormulas,
    explain: explainConvolution,
  },
  max_pool: {
    anchor: `${POOLING}#max-pooling`,
    formulas: {
      y: "y[i, j, c] = max_{a, a′} X[s·i + a, s·j + a′, c]",
      dx: "dX[u, v, c] = Σ_{i, j} dy[i, j, c] · 1[X[u, v, c] = max]",
    },
    explain: explainPool,
  },
  average_pool: {
    anchor: `${POOLING}#average-pooling`,
    formulas: {
      y: "y[i, j, c] = 1/n Σ_{a, a′} X[s·i + a, s·j + a′, c]", dx: "dX[u, v, c] = 1/n Σ_{i, j} dy[i, j, c]",
    },
    explain: explainAverage,
  },
  adaptive_average_pool: {
    anchor: `${POOLING}#adaptive-average-pooling`,
    formulas: { y: "y[i, j, c] = 1/n Σ_{u, v} X[u, v, c]", dx: "dX[u, v, c] = Σ_{i, j} dy[i, j, c] / n" },
    explain: explainAverage,
  },
  global_average_pool: {
    anchor: `${POOLING}#global-average-pooling`,
    formulas: { y: "y[c] = 1/n Σ_{i, j} X[i, j, c]", dx: "dX[i, j, c] = dy[c] / n" },
    explain: explainAverage,
  },
  relu: {
    anchor: `${NETWORK}#relu`,
    formulas: { y: "y = max(x, 0)", dx: "dx = dy · 1[x > 0]" },
    explain: explainMasked,
  },
  leaky_relu: {
    anchor: `${OTHERS}#leaky-relu`,
    formulas: { y: "y = max(x, 0) + s · min(x, 0)", dx: "dx = dy · (1[x ≥ 0] + s · 1[x < 0])" },
    explain: explainMasked,
  },
  sigmoid: {
    anchor: `${OTHERS}#sigmoid`,
    formulas: { y: "y = 1 / (1 + e^{−x})", dx: "dx = dy · y · (1 − y)" },
    explain: elementwise(() => [], (x, y) => [["y", y], ["1 − y", 1 - y]]),
  },
  tanh: {
    anchor: `${OTHERS}#tanh`,
    formulas: { y: "y = (e^{x} − e^{−x}) / (e^{x} + e^{−x})", dx: "dx = dy · (1 − y^{2})" },
    explain: elementwise(() => [], (x, y) => [["1 − y^{2}", 1 - y * y]]),
  },
  gelu: {
    anchor: `${OTHERS}#gelu`,
    formulas: {
      y: "y = x · (1 + t) / 2,   t = tanh(√(2/π) · (x + 0.044715 x^{3}))",
      dx: "dx = dy · ((1 + t) / 2 + x · (1 − t^{2}) · √(2/π) · (1 + 0.134145 x^{2}) / 2)",
    },
    explain: elementwise((x) => [["t", geluTanh(x)]], (x) => [["∂y / ∂x", geluSlope(x)]]),
  },
  softmax: {
    anchor: `${LOSSES}#softmax`,
    formulas: { y: "p[i] = e^{x[i]} / Σ_{j} e^{x[j]}", dx: "dx[j] = p[j] · (dp[j] − Σ_{i} dp[i] · p[i])" },
    explain: elementwise(() => [], (x, y) => [["p", y]]),
  },
  local_response_norm: {
    anchor: `${NORMS}#local-response-normalization`,
    formulas: {
      y: "y[c] = x[c] · s[c]^{−β},   s[c] = k + α Σ x^{2}", dx: "dx[c] = dy[c] · s[c]^{−β} − 2αβ · x[c] · Σ dy · y / s",
    },
    explain: elementwise((x, n, s) => [["s", s[n]]], (x, y, n, s) => [["x", x], ["s", s[n]]]),
  },
  batch_norm: {
    anchor: `${NORMS}#batch-normalization`,
    formulas: {
      y: "y = γ · x̂ + β,   x̂ = (x − μ) / √(v + ε)", dscale: "dγ = Σ dy · x̂", dshift: "dβ = Σ dy", dx: "dx = dy · γ / √(v + ε)",
    },
    explain: explainNorm,
  },
  layer_norm: {
    anchor: `${NORMS}#layer-normalization`,
    formulas: {
      y: "y[c] = γ[c] · x̂[c] + β[c],   x̂ = r · (x − mean x),   r = 1 / √(var x + ε)",
      dscale: "dγ[c] = Σ dy[c] · x̂[c]", dshift: "dβ[c] = Σ dy[c]",
      dx: "dx = r · (dx̂ − mean(dx̂) − x̂ · mean(dx̂ · x̂)),   dx̂ = γ · dy",
    },
    explain: explainNorm,
  },
  flatten: {
    anchor: `${POOLING}#flatten`,
    formulas: { y: "y = x", dx: "dx = dy" },
    explain: explainSame,
  },
  dropout: {
    anchor: `${NORMS}#dropout`,
    formulas: { y: "y = x", dx: "dx = dy" },
    explain: explainSame,
  },
  normalize: {
    anchor: `${NETWORK}#notation`,
    formulas: { y: "y[i, j, c] = (X[i, j, c] − μ[c]) / σ[c]", dx: "dX[i, j, c] = dy[i, j, c] / σ[c]" },
    explain: explainNormalize,
  },
  fork: {
    anchor: "residual.py", // Derived in the docstring of jaxnets/backprop/residual.py.
    formulas: ({ identity }) => ({ y: `y = F(X) + ${identity ? "X" : "S(X)"}`, dx: `dX = dX_{F} + ${identity ? "dy" : "dX_{S}"}` }),
    explain: explainFork,
  },
  add: {
    anchor: "residual.py",
    formulas: ({ identity }) => ({ y: `y = F + ${identity ? "X" : "S"}`, dx: identity ? "dF = dy" : "dF = dS = dy" }),
    explain: ({ layer, x, other, y }, view, n) => ({
      symbol: named("y", layer.outShape, n), value: y[n],
      lines: [[say("chain"), x[n]], [say("shortcut"), other[n]]],
    }),
  },
  cross_entropy: {
    anchor: `${LOSSES}#cross-entropy`,
    formulas: { p: "p[k] = e^{z[k]} / Σ_{j} e^{z[j]}", dz: "L = −Σ_{k} y[k] · log p[k]:   dz = p − y" },
  },
  mse: {
    anchor: `${LOSSES}#squared-errors`,
    formulas: {
      p: "p[k] = e^{z[k]} / Σ_{j} e^{z[j]}",
      dz: "dp = 2/K · (p − y),   dz[j] = p[j] · (dp[j] − Σ_{i} dp[i] · p[i])",
    },
  },
  half_mse: {
    anchor: `${LOSSES}#squared-errors`,
    formulas: {
      p: "p[k] = e^{z[k]} / Σ_{j} e^{z[j]}",
      dz: "dp = p − y,   dz[j] = p[j] · (dp[j] − Σ_{i} dp[i] · p[i])",
    },
  },
  input: {
    formulas: { x: "X = g / 255", dx: "dX = ∂L / ∂X" },
  },
};

/** The explanations of a kind of layer; a user's own layer may have them next to its pair. */
function explanationsOf(kind) {
  return EXPLANATIONS[kind] ?? { formulas: {}, explain: explainOther, ...KINDS[kind] };
}

/** The formulas of a layer, or of a loss. */
function formulasOf(layer) {
  const { formulas } = explanationsOf(layer.kind ?? layer);
  return typeof formulas === "function" ? formulas(layer) : formulas;
}

function onesFormulas({ shapes: { kernel: [rows] } }) {
  const last = rows - 1;
  return {
    ...EXPLANATIONS.dense.formulas,
    y: `z = [X 1] W:   z[k] = Σ_{d} X[d] · W[d, k] + 1 · W[${last}, k]`,
    db: `dW[${last}, k] = 1 · dz[k]`,
  };
}

function convolutionFormulas({ strides: [down, across], padding: [[top], [left]], feature_group_count: groups, shapes: { kernel } }) {
  const times = (step, index) => (step === 1 ? index : `${step}${index}`), plus = (pad, sign) => (pad ? ` ${sign} ${pad}` : "");
  const inputs = kernel[2], each = kernel[3] / groups, channel = groups === 1 ? "c" : `${inputs}⌊k/${each}⌋ + c`;
  const row = `${times(down, "i")} + a${plus(top, "−")}`, column = `${times(across, "j")} + a′${plus(left, "−")}`;
  const X = `X[${row}, ${column}, ${channel}]`;
  return {
    y: `z[i, j, k] = Σ_{a, a′, c} ${X} · W[a, a′, c, k] + b[k]`,
    dW: `dW[a, a′, c, k] = Σ_{i, j} ${X} · dz[i, j, k]`,
    db: "db[k] = Σ_{i, j} dz[i, j, k]",
    dx: down === 1 && across === 1 && groups === 1
      ? `dX[u, v, c] = Σ_{a, a′, k} dz[u${plus(top, "+")} − a, v${plus(left, "+")} − a′, k] · W[a, a′, c, k]`
      : `dX[u, v, ${channel}] = Σ dz[i, j, k] · W[a, a′, c, k],   ${row} = u,   ${column} = v`,
  };
}

/** A formula as text and elements: _{...} is a subscript, ^{...} a superscript. */
function formulaNodes(formula) {
  return formula.split(/([_^]\{[^}]*\})/).map((part) => {
    const tag = { "_{": "sub", "^{": "sup" }[part.slice(0, 2)];
    return tag ? element(tag, { text: part.slice(2, -1) }) : part;
  });
}

/** The indices of a place in an array of a shape. */
function indicesOf(shape, index) {
  const out = [];
  for (let n = shape.length - 1; n >= 0; n--) {
    out.unshift(index % shape[n]);
    index = Math.floor(index / shape[n]);
  }
  return out;
}

/** A number's name, such as z[3, 4, 7]. */
function named(symbol, shape, index) {
  const at = indicesOf(shape, index);
  if (shape.length === 3 && shape[2] === 1) at.pop();
  return `${symbol}[${at.join(", ")}]`;
}

/** Explains a number of a view of layer n; n = -1 is the picture, n = the number of layers is the loss. */
function explain(state, n, view, index) {
  const { network, pass, back } = state, layer = network.layers[n];
  if (n < 0) return explainPicture(state, view, index);
  if (!layer) return explainLoss(state, view, index);
  const { kind, sources } = layer, [x, other] = sources.map((source) => pass.values[source]), y = pass.values[n + 1];
  const scene = { n, network, layer, x, other, y, dy: back?.d[n + 1], dx: back?.inputs[n], gradient: back?.gradients[n], cache: pass.caches[n], back };
  const found = WEIGHTS[view] ? explainWeight(scene, view, index) : explanationsOf(kind).explain(scene, view, index), formulas = formulasOf(layer);
  const array = { dW: "kernel", db: layer.bias ? "bias" : "kernel", dx: "value", dscale: "scale", dshift: "bias" }[view];
  const moved = view === "db" && !layer.bias ? layer.kernel.length - layer.outShape[0] + index : index;
  return {
    formula: formulas[view] ?? formulas.dx,
    anchor: explanationsOf(kind).anchor,
    check: array && back ? { n, array, index: moved } : null,
    ...found,
  };
}

function explainNormalize({ layer, x, y, dy, dx }, view, index) {
  const { inShape, outShape, mean, std } = layer;
  if (view === "y") {
    const at = colourOf(layer, index), lines = [[named("X", inShape, at), x[at]], ["μ", mean[index % 3]], ["σ", std[index % 3]]];
    return { symbol: named("y", outShape, index), value: y[index], lines };
  }
  const lines = [];
  dy.forEach((d, n) => {
    if (colourOf(layer, n) === index) lines.push([named("dy", outShape, n), d], ["σ", std[n % 3]]);
  });
  return { symbol: named("dX", inShape, index), value: dx[index], lines };
}

function explainPicture(state, view, index) {
  if (view === "dx") return explain(state, firstLayer(state.network), "dx", index);
  const value = state.pass.values[0][index];
  return {
    symbol: named("X", state.network.imageShape, index), value, formula: EXPLANATIONS.input.formulas.x, anchor: `${NETWORK}#notation`,
    lines: [["g", Math.round(255 * value)]], check: null,
  };
}

/** The first layer that computes: its dX is that of the picture, which may have been flattened. */
function firstLayer(network) {
  return network.layers.findIndex((layer) => layer.kind !== "flatten");
}

// The views of arrays that learn, and the arrays' names and symbols.
const WEIGHTS = { W: ["kernel", "W"], b: ["bias", "b"], scale: ["scale", "γ"] };

function explainWeight({ layer, gradient }, view, index) {
  const [array, symbol] = WEIGHTS[view], value = layer[array][index], dv = gradient?.[array][index];
  const lines = gradient ? [[`d${symbol}`, dv], ["η", rateNow()], [`${symbol} − η d${symbol}`, value - rateNow() * dv]] : [];
  return { symbol: named(symbol, layer.shapes[array], index), value, formula: `${symbol} ← ${symbol} − η d${symbol}`, lines };
}

/** Explains a layer that treats each number by itself; both functions give lines behind x, and behind dy. */
function elementwise(linesOfY, linesOfDx) {
  return ({ layer, x, y, dy, dx, cache }, view, n) => view === "y"
    ? { symbol: named(layer.kind === "softmax" ? "p" : "y", layer.outShape, n), value: y[n], lines: [["x", x[n]], ...linesOfY(x[n], n, cache, layer)] }
    : { symbol: named("dX", layer.inShape, n), value: dx[n], lines: [[layer.kind === "softmax" ? "dp" : "dy", dy[n]], ...linesOfDx(x[n], y[n], n, cache, layer)] };
}

/** A number of a layer that has no explanation. */
function explainOther({ layer, y, dx }, view, index) {
  if (view === "y") return { symbol: named("y", layer.outShape, index), value: y[index], lines: [] };
  return { symbol: named("dX", layer.inShape, index), value: dx[index], lines: [] };
}

/** The gradients from both branches. */
function explainFork({ n, layer, network, dx, back }, view, index) {
  const lines = network.layers.flatMap((reader, at) => reader.sources.map((source) => [reader, at, source]))
    .filter(([, , source]) => source === n + 1)
    .map(([, at]) => [say("dxOf", { layer: layerTitle(at) }), back.inputs[at][index]]);
  return { symbol: named("dX", layer.inShape, index), value: dx[index], lines };
}

function explainNorm({ layer, x, y, dy, dx, gradient, cache }, view, index) {
  const { scale, bias, mean, kind } = layer, channels = scale.length, c = index % channels, isBatch = kind === "batch_norm";
  const normal = isBatch ? cache : cache.normal, r = isBatch ? 1 / Math.sqrt(layer.var[c] + layer.epsilon) : cache.r[Math.floor(index / channels)];
  if (view === "y") {
    const lines = [["x", x[index]], ["mean x", isBatch ? mean[c] : x[index] - normal[index] / r], ["r", r], ["x̂", normal[index]], ["γ", scale[c]], ["β", bias[c]]];
    return { symbol: named("y", layer.outShape, index), value: y[index], lines };
  }
  if (view === "dx") {
    const lines = [["dy", dy[index]], ["γ", scale[c]], ["r", r]];
    if (!isBatch) {
      const means = layerNormMeans(Math.floor(index / channels), dy.map((d, n) => scale[n % channels] * d), normal, channels);
      lines.push(["mean(dx̂)", means.mean], ["x̂", normal[index]], ["mean(dx̂ · x̂)", means.inner]);
    }
    return { symbol: named("dX", layer.inShape, index), value: dx[index], lines };
  }
  const isScale = view === "dscale", terms = [];
  for (let n = index; n < dy.length; n += channels) terms.push([named("dy", layer.outShape, n), dy[n], isScale ? normal[n] : 1]);
  const value = gradient[isScale ? "scale" : "bias"][index];
  return { symbol: `${isScale ? "dγ" : "dβ"}[${index}]`, value, head: ["dy", isScale ? "x̂" : "1"], terms, extra: [] };
}

function explainAverage({ layer, x, y, dy, dx }, view, index) {
  const terms = [], { inShape, outShape } = layer;
  eachOfAverages(layer, (out, at, share) => {
    if (view === "y" && out === index) terms.push([named("X", inShape, at), x[at], share]);
    if (view === "dx" && at === index) terms.push([named("dy", outShape, out), dy[out], share]);
  });
  if (view === "y") return { symbol: named("y", outShape, index), value: y[index], head: ["X", "1/n"], terms, extra: [] };
  return { symbol: named("dX", inShape, index), value: dx[index], head: ["dy", "1/n"], terms, extra: [] };
}

/** A ReLU's numbers, and a leaky one's. */
function explainMasked({ layer, x, y, dy, dx }, view, n) {
  if (view === "y") return { symbol: named("y", layer.outShape, n), value: y[n], lines: [["x", x[n]]] };
  if (view === "mask") return { symbol: named("mask", layer.outShape, n), value: KINDS[layer.kind].mask(layer, x[n]), lines: [["x", x[n]]] };
  return { symbol: named("dX", layer.inShape, n), value: dx[n], lines: [["x", x[n]], ["dy", dy[n]]] };
}

function explainSame({ layer, x, dy }, view, n) {
  if (view === "y") return { symbol: named("y", layer.outShape, n), value: x[n], lines: [[named("X", layer.inShape, n), x[n]]] };
  return { symbol: named("dX", layer.inShape, n), value: dy[n], lines: [[named("dy", layer.outShape, n), dy[n]]] };
}

function explainDense({ layer, x, y, dy, dx, gradient }, view, index) {
  const outputs = layer.outShape[0], inputs = product(layer.inShape), shape = [inputs, outputs], W = layer.kernel;
  const each = (size, term) => Array.from({ length: size }, (_, n) => term(n));
  if (view === "y") {
    const terms = each(inputs, (d) => [`d = ${d}`, x[d], W[d * outputs + index]]);
    const bias = layer.bias ? layer.bias[index] : layer.ones ? W[inputs * outputs + index] : null;
    const extra = bias === null ? [] : [[say("bias"), bias]];
    return { symbol: named("z", layer.outShape, index), value: y[index], head: ["X[d]", "W[d, k]"], terms, extra };
  }
  if (view === "db") {
    const value = layer.bias ? gradient.bias[index] : gradient.kernel[inputs * outputs + index];
    return { symbol: named("db", layer.outShape, index), value, lines: [[named("dz", layer.outShape, index), dy[index]]] };
  }
  if (view === "dx") {
    const terms = each(outputs, (k) => [`k = ${k}`, dy[k], W[index * outputs + k]]);
    return { symbol: named("dX", [inputs], index), value: dx[index], head: ["dz[k]", "W[d, k]"], terms, extra: [] };
  }
  const [d, k] = indicesOf(shape, index);
  return {
    symbol: named("dW", shape, index), value: gradient.kernel[index],
    head: ["X[d]", "dz[k]"], terms: [[`d = ${d}, k = ${k}`, x[d], dy[k]]], extra: [],
  };
}

function explainConvolution({ layer, x, y, dy, dx, gradient }, view, index) {
  const { inShape, outShape, feature_group_count: groups } = layer, [height, width, channels] = inShape, [rows, columns, outputs] = outShape;
  const [tall, wide, inputs] = layer.shapes.kernel, W = layer.kernel, terms = [];
  const [down, across] = layer.strides, [[top], [left]] = layer.padding;
  const weight = (a, b, c, k) => ((a * wide + b) * inputs + c) * outputs + k;
  const of = (...at) => (channels === 1 ? at.filter((_, n) => n !== 2) : at).join(", ");
  const firstOf = (k) => Math.floor((k * groups) / outputs) * inputs; // The first channel that output k sees.
  const inside = (u, v) => u >= 0 && v >= 0 && u < height && v < width; // Otherwise it is a zero of the padding.
  if (view === "y") {
    const [i, j, k] = indicesOf(outShape, index), first = firstOf(k);
    for (let a = 0; a < tall; a++) for (let b = 0; b < wide; b++) for (let c = 0; c < inputs; c++) {
      const u = i * down + a - top, v = j * across + b - left;
      if (!inside(u, v)) continue;
      const at = (u * width + v) * channels + first + c;
      terms.push([`X[${of(u, v, first + c)}] · W[${[a, b, c, k].join(", ")}]`, x[at], W[weight(a, b, c, k)]]);
    }
    const extra = layer.bias ? [[say("bias"), layer.bias[k]]] : [];
    return { symbol: named("z", outShape, index), value: y[index], head: ["X", "W"], terms, extra };
  }
  if (view === "dx") {
    const [u, v, channel] = indicesOf(inShape, index);
    for (let a = 0; a < tall; a++) for (let b = 0; b < wide; b++) {
      const i = (u + top - a) / down, j = (v + left - b) / across;
      if (!Number.isInteger(i) || !Number.isInteger(j) || i < 0 || j < 0 || i >= rows || j >= columns) continue;
      for (let k = 0; k < outputs; k++) {
        const c = channel - firstOf(k);
        if (c < 0 || c >= inputs) continue;
        terms.push([`dz[${i}, ${j}, ${k}] · W[${[a, b, c, k].join(", ")}]`, dy[(i * columns + j) * outputs + k], W[weight(a, b, c, k)]]);
      }
    }
    return { symbol: named("dX", inShape, index), value: dx[index], head: ["dz", "W"], terms, extra: [] };
  }
  const [a, b, c, k] = view === "db" ? [0, 0, 0, index] : indicesOf(layer.shapes.kernel, index), channel = firstOf(k) + c;
  for (let i = 0; i < rows; i++) for (let j = 0; j < columns; j++) {
    const d = dy[(i * columns + j) * outputs + k], u = i * down + a - top, v = j * across + b - left;
    if (view === "db") terms.push([`dz[${i}, ${j}, ${k}]`, d, 1]);
    else if (inside(u, v)) terms.push([`X[${of(u, v, channel)}] · dz[${i}, ${j}, ${k}]`, x[(u * width + v) * channels + channel], d]);
  }
  if (view === "db") return { symbol: `db[${k}]`, value: gradient.bias[k], head: ["dz", "1"], terms, extra: [] };
  return { symbol: named("dW", layer.shapes.kernel, index), value: gradient.kernel[index], head: ["X", "dz"], terms, extra: [] };
}

function explainPool({ layer, x, y, dy, dx, cache: winners }, view, index) {
  const { inShape, outShape, window, stride } = layer, [, width, channels] = inShape;
  if (view === "y") {
    const [i, j, c] = indicesOf(outShape, index), lines = [];
    for (let a = 0; a < window; a++) for (let b = 0; b < window; b++) {
      const at = ((i * stride + a) * width + j * stride + b) * channels + c;
      lines.push([named("X", inShape, at) + (winners[index] === at ? "  ←" : ""), x[at]]);
    }
    return { symbol: named("y", outShape, index), value: y[index], lines };
  }
  const won = [];
  winners.forEach((place, n) => { if (place === index) won.push(n); });
  if (view === "winners") {
    return { symbol: named("winner", inShape, index), value: won.length, lines: won.map((n) => [named("y", outShape, n), y[n]]) };
  }
  return { symbol: named("dX", inShape, index), value: dx[index], lines: won.map((n) => [named("dy", outShape, n), dy[n]]) };
}

function explainLoss({ network, pass, back, label, classNames }, view, index) {
  const shape = [pass.p.length], logits = pass.values[network.layers.length], { p } = pass;
  const { anchor, formulas } = EXPLANATIONS[network.loss];
  const common = { formula: formulas[view], anchor: view === "p" ? EXPLANATIONS.softmax.anchor : anchor, check: null };
  if (view === "p") {
    const sum = logits.reduce((total, z) => total + Math.exp(z), 0);
    const lines = [[named("z", shape, index), logits[index]], ["e^{z}", Math.exp(logits[index])], ["Σ e^{z}", sum]];
    return { ...common, symbol: `p[${classNames[index]}]`, value: p[index], lines };
  }
  const lines = [["p", p[index]], ["y", index === label ? 1 : 0]];
  if (back.dp) lines.push(["dp", back.dp[index]], ["Σ dp p", back.dp.reduce((sum, d, k) => sum + d * p[k], 0)]);
  return {
    ...common, symbol: `dz[${classNames[index]}]`, value: back.d[network.layers.length][index], lines,
    check: { n: network.layers.length, array: "value", index },
  };
}

/**
 * The slopes of the loss at one number v, by further forward passes, next to the derivative by hand.
 *
 * v is an input of layer n ("value") or one of its weights ("kernel", "bias"). Where numbers are
 * equal, the loss has a kink, and the derivation follows one choice: the first of equal numbers in
 * a pool, 0 at 0 in ReLU. If the choices made at v are fixed, the loss has no kink, and only its difference
 * judges the derivation. There is a kink where the difference of the loss itself is another number.
 *
 * With ε = 10⁻⁶ the losses' rounding would make errors of 10⁻⁸; at 10⁻⁴ hardly more choices change.
 */
function checkDerivative({ network, pass, label }, { n, array, index }, derived, epsilon = 1e-4) {
  const input = pass.values[network.layers[n]?.sources[0] ?? n];
  const lossAt = (move, held = false) => {
    const weights = array === "value" ? input.slice() : network.layers[n][array];
    const before = weights[index];
    weights[index] = before + move;
    const x = array === "value" ? weights : input;
    const loss = lossOf(network, forward(network, x, n, pass, held), label);
    weights[index] = before;
    return loss;
  };
  const here = lossAt(0), above = lossAt(epsilon), below = lossAt(-epsilon);
  const central = (above - below) / (2 * epsilon);
  const held = (lossAt(epsilon, true) - lossAt(-epsilon, true)) / (2 * epsilon);
  // Smaller numbers are compared with this one: rounding moves them by more than a share of 10⁻⁴.
  const floor = 1e-6 * pass.values[network.layers.length].reduce((a, z) => Math.max(a, Math.abs(z)), 1);
  const difference = Math.abs(held - derived) / Math.max(Math.abs(held), Math.abs(derived), floor);
  const kink = Math.abs(held - central) > 1e-4 * Math.max(Math.abs(held), floor);
  return {
    epsilon, above, below, central, difference,
    verdict: !(difference < 1e-4) ? "differ" : kink ? "kink" : "agree",
    left: (here - below) / epsilon,
    right: (above - here) / epsilon,
  };
}
