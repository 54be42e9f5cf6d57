"use strict";
// The network: each layer's forward pass, and its backward pass derived by hand.
//
// Nothing here differentiates. The formulas are those of docs/backprop/, for one picture (B = 1):
// dv is the derivative of the loss with respect to v, and has v's shape. Arrays are rows of numbers
// in 64 bits, in the order of Python's: x[i][j][c] is x[(i * width + j) * channels + c].

// ---- Reading the run ----

/** The weights of run.js, from base64, as numbers in 64 bits. */
function readWeights(run) {
  const text = atob(run.weights);
  const bytes = new Uint8Array(text.length);
  for (let n = 0; n < text.length; n++) bytes[n] = text.charCodeAt(n);
  if (run.dtype === "float32") return Float64Array.from(new Float32Array(bytes.buffer));
  return Float64Array.from(new Uint16Array(bytes.buffer), fromFloat16);
}

/** The number of 16 bits: 1 of sign, 5 of exponent, 10 of fraction. */
function fromFloat16(bits) {
  const sign = bits & 0x8000 ? -1 : 1, exponent = (bits >> 10) & 31, fraction = bits & 1023;
  if (exponent === 0) return sign * fraction * 2 ** -24;
  return sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
}

/** The network of run.js: its loss, and its layers with their arrays and shapes. */
function readNetwork(run) {
  const weights = readWeights(run);
  let start = 0, shape = [28, 28, 1];
  const layers = run.layers.map((read) => {
    const layer = { ...read, inShape: shape, kernel: null, bias: null };
    for (const [name, sizes] of Object.entries(read.shapes ?? {})) {
      layer[name] = weights.slice(start, start + product(sizes));
      start += product(sizes);
    }
    shape = layer.outShape = KINDS[layer.kind].outShape(layer, shape);
    return layer;
  });
  return { model: run.model, loss: run.loss, layers };
}

function product(sizes) {
  return sizes.reduce((a, b) => a * b, 1);
}

/** The place of the number with the largest size. */
function largestAt(values) {
  let best = 0;
  for (let n = 1; n < values.length; n++) if (Math.abs(values[n]) > Math.abs(values[best])) best = n;
  return best;
}

// ---- Layers: forward(layer, x) → {y, cache};  backward(layer, x, y, cache, dy) → {dx, ...} ----
// A layer that chooses among numbers has held(x, y, cache), too: its output at x with the choices of
// the pass that gave y and the cache. It has no kinks.

const same = (layer, shape) => shape;
const unchanged = (layer, x) => ({ y: x }), unchangedGradient = (layer, x, y, cache, dy) => ({ dx: dy });

const KINDS = {
  flatten: {
    outShape: (layer, shape) => [product(shape)],
    forward: unchanged,
    backward: unchangedGradient,
  },
  dropout: { outShape: same, forward: unchanged, backward: unchangedGradient }, // Only training drops.
  relu: {
    outShape: same,
    forward: reluForward,
    backward: reluBackward,
    held: (x, y) => x.map((value, n) => (y[n] > 0 ? value : 0)),
  },
  sigmoid: { outShape: same, forward: sigmoidForward, backward: sigmoidBackward },
  softmax: { outShape: same, forward: softmaxForward, backward: softmaxBackward },
  dense: { outShape: (layer) => [layer.shapes.kernel[1]], forward: denseForward, backward: denseBackward },
  conv: {
    outShape: (layer, [height, width]) => {
      const [rows, columns, , outputs] = layer.shapes.kernel;
      return [height - rows + 1, width - columns + 1, outputs];
    },
    forward: convolutionForward,
    backward: convolutionBackward,
  },
  max_pool: {
    outShape: ({ window, stride }, [height, width, channels]) =>
      [Math.floor((height - window) / stride) + 1, Math.floor((width - window) / stride) + 1, channels],
    forward: maxPoolForward,
    backward: maxPoolBackward,
    held: (x, y, winners) => y.map((_, n) => x[winners[n]]),
  },
};

KINDS.dense_with_ones = KINDS.dense;

/** z_k = Σ_d x_d W_dk + b_k. With a column of ones, b is the last row of W. */
function denseForward(layer, x) {
  const inputs = product(layer.inShape), outputs = layer.outShape[0], W = layer.kernel;
  const z = new Float64Array(outputs);
  if (layer.bias) z.set(layer.bias);
  if (layer.kind === "dense_with_ones") z.set(W.subarray(inputs * outputs));
  for (let d = 0; d < inputs; d++) {
    const value = x[d], row = d * outputs;
    if (value === 0) continue; // Most pixels are black, and ReLU leaves many zeros.
    for (let k = 0; k < outputs; k++) z[k] += value * W[row + k];
  }
  return { y: z };
}

/** dW_dk = x_d dz_k,  db_k = dz_k,  dx_d = Σ_k dz_k W_dk. */
function denseBackward(layer, x, z, cache, dz) {
  const inputs = product(layer.inShape), outputs = dz.length, W = layer.kernel;
  const dW = new Float64Array(W.length), dx = new Float64Array(inputs);
  for (let d = 0; d < inputs; d++) {
    const value = x[d], row = d * outputs;
    let sum = 0;
    for (let k = 0; k < outputs; k++) {
      dW[row + k] = value * dz[k];
      sum += dz[k] * W[row + k];
    }
    dx[d] = sum;
  }
  if (layer.kind === "dense_with_ones") dW.set(dz, inputs * outputs);
  return { dx, kernel: dW, bias: layer.bias && dz.slice() };
}

/** z_ijk = Σ_{a,a',c} x_{i+a,j+a',c} W_{a,a',c,k} + b_k. */
function convolutionForward(layer, x) {
  const [, width, channels] = layer.inShape, [rows, columns, outputs] = layer.outShape;
  const [tall, wide] = layer.shapes.kernel, W = layer.kernel, b = layer.bias;
  const z = new Float64Array(rows * columns * outputs);
  for (let i = 0; i < rows; i++) {
    for (let j = 0; j < columns; j++) {
      const out = (i * columns + j) * outputs;
      if (b) for (let k = 0; k < outputs; k++) z[out + k] = b[k];
      for (let a = 0; a < tall; a++) {
        const from = ((i + a) * width + j) * channels, weights = a * wide * channels;
        for (let n = 0; n < wide * channels; n++) { // n counts a' and c.
          const value = x[from + n], row = (weights + n) * outputs;
          if (value === 0) continue;
          for (let k = 0; k < outputs; k++) z[out + k] += value * W[row + k];
        }
      }
    }
  }
  return { y: z };
}

/**
 * dW_{a,a',c,k} = Σ_ij x_{i+a,j+a',c} dz_ijk,  db_k = Σ_ij dz_ijk,
 * dx_uvc = Σ_{a,a',k} dz_{u-a,v-a',k} W_{a,a',c,k}.
 */
function convolutionBackward(layer, x, z, cache, dz) {
  const [, width, channels] = layer.inShape, [rows, columns, outputs] = layer.outShape;
  const [tall, wide] = layer.shapes.kernel, W = layer.kernel;
  const dW = new Float64Array(W.length), db = new Float64Array(outputs);
  const dx = new Float64Array(x.length), used = new Int32Array(outputs), d = new Float64Array(outputs);
  for (let i = 0; i < rows; i++) {
    for (let j = 0; j < columns; j++) {
      const out = (i * columns + j) * outputs;
      let count = 0; // Behind a pool most are zero: only the others are walked.
      for (let k = 0; k < outputs; k++) {
        const value = dz[out + k];
        if (value === 0) continue;
        db[k] += value;
        d[count] = value;
        used[count++] = k;
      }
      if (count === 0) continue;
      for (let a = 0; a < tall; a++) {
        const from = ((i + a) * width + j) * channels, weights = a * wide * channels;
        for (let n = 0; n < wide * channels; n++) {
          const value = x[from + n], row = (weights + n) * outputs;
          let sum = 0;
          for (let m = 0; m < count; m++) {
            const at = row + used[m];
            dW[at] += value * d[m];
            sum += d[m] * W[at];
          }
          dx[from + n] += sum;
        }
      }
    }
  }
  return { dx, kernel: dW, bias: layer.bias && db };
}

/** y = max(x, 0). */
function reluForward(layer, x) {
  return { y: x.map((value) => (value > 0 ? value : 0)) };
}

/** dx = dy where y > 0, else 0. */
function reluBackward(layer, x, y, cache, dy) {
  return { dx: dy.map((value, n) => (y[n] > 0 ? value : 0)) };
}

/** y = 1 / (1 + e⁻ˣ), expanded by eˣ where x is negative. */
function sigmoidForward(layer, x) {
  return {
    y: x.map((value) => {
      const e = Math.exp(-Math.abs(value));
      return (value >= 0 ? 1 : e) / (1 + e);
    }),
  };
}

/** dx = dy y (1 - y). */
function sigmoidBackward(layer, x, y, cache, dy) {
  return { dx: dy.map((value, n) => value * y[n] * (1 - y[n])) };
}

/** p_i = e^x_i / Σ_j e^x_j over the last axis. */
function softmaxForward(layer, x) {
  const size = layer.outShape[layer.outShape.length - 1], y = new Float64Array(x.length);
  for (let start = 0; start < x.length; start += size) y.set(softmax(x.subarray(start, start + size)), start);
  return { y };
}

/** dx_j = p_j (dp_j - Σ_i dp_i p_i) over the last axis. */
function softmaxBackward(layer, x, y, cache, dy) {
  const size = layer.outShape[layer.outShape.length - 1], dx = new Float64Array(x.length);
  for (let start = 0; start < x.length; start += size) {
    const end = start + size;
    dx.set(softmaxGradient(y.subarray(start, end), dy.subarray(start, end)), start);
  }
  return { dx };
}

function softmax(x) {
  const largest = x.reduce((a, b) => Math.max(a, b), -Infinity);
  const e = x.map((value) => Math.exp(value - largest));
  const sum = e.reduce((a, b) => a + b, 0);
  return e.map((value) => value / sum);
}

function softmaxGradient(p, dp) {
  const inner = p.reduce((sum, value, n) => sum + value * dp[n], 0);
  return p.map((value, n) => value * (dp[n] - inner));
}

/** y_ijc: the largest of each window. The cache is the winner's place in x; the first of equals. */
function maxPoolForward(layer, x) {
  const [, width, channels] = layer.inShape, [rows, columns] = layer.outShape;
  const { window, stride } = layer;
  const y = new Float64Array(rows * columns * channels), winners = new Int32Array(y.length);
  let out = 0;
  for (let i = 0; i < rows; i++) {
    for (let j = 0; j < columns; j++) {
      for (let c = 0; c < channels; c++, out++) {
        let best = (i * stride * width + j * stride) * channels + c;
        for (let a = 0; a < window; a++) {
          for (let b = 0; b < window; b++) {
            const at = ((i * stride + a) * width + j * stride + b) * channels + c;
            if (x[at] > x[best]) best = at;
          }
        }
        y[out] = x[best];
        winners[out] = best;
      }
    }
  }
  return { y, cache: winners };
}

/** Each window's gradient goes to the number that won. */
function maxPoolBackward(layer, x, y, winners, dy) {
  const dx = new Float64Array(x.length);
  for (let n = 0; n < dy.length; n++) dx[winners[n]] += dy[n];
  return { dx };
}

// ---- The whole network ----

/**
 * The forward pass of one picture.
 *
 * values[0] is the picture and values[n + 1] the output of layer n; the last one is the logits.
 * With `from` and `before`, the passes through the layers before `from` are taken from `before`.
 * If `held`, ReLUs and pools choose what they chose in `before`.
 */
function forward(network, image, from = 0, before = null, held = false) {
  const values = before ? before.values.slice(0, from + 1) : [image];
  const caches = before ? before.caches.slice(0, from) : [];
  values[from] = image;
  for (let n = from; n < network.layers.length; n++) {
    const layer = network.layers[n], kind = KINDS[layer.kind];
    const { y, cache } = held && kind.held
      ? { y: kind.held(values[n], before.values[n + 1], before.caches[n]) }
      : kind.forward(layer, values[n]);
    values.push(y);
    caches.push(cache);
  }
  return { values, caches, p: softmax(values[values.length - 1]) };
}

/** The loss of a pass whose true class is the label. */
function lossOf(network, pass, label) {
  const { p } = pass, logits = pass.values[pass.values.length - 1];
  if (network.loss === "cross_entropy") { // -log p_label, written so that log 0 never occurs.
    const largest = logits.reduce((a, b) => Math.max(a, b), -Infinity);
    return Math.log(logits.reduce((sum, z) => sum + Math.exp(z - largest), 0)) + largest - logits[label];
  }
  const squares = p.reduce((sum, value, k) => sum + (value - (k === label ? 1 : 0)) ** 2, 0);
  return network.loss === "mse" ? squares / p.length : squares / 2;
}

/** The loss' gradient with respect to p (null for cross-entropy, derived in one step) and the logits. */
function lossGradient(network, p, label) {
  const difference = p.map((value, k) => value - (k === label ? 1 : 0)); // p - y
  if (network.loss === "cross_entropy") return { dp: null, dz: difference };
  const factor = network.loss === "mse" ? 2 / p.length : 1;
  const dp = difference.map((value) => factor * value);
  return { dp, dz: softmaxGradient(p, dp) };
}

/**
 * The backward pass: d[n] is the gradient of values[n], gradients[n] has that of layer n's arrays.
 */
function backward(network, pass, label) {
  const count = network.layers.length, d = new Array(count + 1), gradients = new Array(count);
  const { dp, dz } = lossGradient(network, pass.p, label);
  d[count] = dz;
  for (let n = count - 1; n >= 0; n--) {
    const layer = network.layers[n];
    const found = KINDS[layer.kind].backward(layer, pass.values[n], pass.values[n + 1], pass.caches[n], d[n + 1]);
    d[n] = found.dx;
    gradients[n] = { kernel: found.kernel ?? null, bias: found.bias ?? null };
  }
  return { d, gradients, dp };
}

/** A copy of the network after one step of gradient descent: W ← W - η dW for every array. */
function stepped(network, gradients, rate) {
  const moved = (v, dv) => v && v.map((value, n) => value - rate * dv[n]);
  const layers = network.layers.map((layer, n) => ({
    ...layer,
    kernel: moved(layer.kernel, gradients[n].kernel),
    bias: moved(layer.bias, gradients[n].bias),
  }));
  return { ...network, layers };
}
