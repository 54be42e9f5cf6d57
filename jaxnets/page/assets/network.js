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

/**
 * The network of run.js: its loss, and its layers with their arrays and shapes, in one row.
 *
 * values[0] is the picture and values[n + 1] the output of layer n; a layer's `sources` are the places
 * of its inputs. A residual block is a layer "fork", the layers of both branches, which are one
 * deeper, and a layer "add" with two sources.
 */
function readNetwork(run) {
  const weights = readWeights(run), layers = [], shapes = [run.imageShape];
  let start = 0;
  const add = (read, sources, depth, branch) => {
    const { ones } = KINDS[read.kind];
    const layer = { ...read, ones, sources, depth, branch, inShape: shapes[sources[0]], outShape: read.shape };
    for (const [name, sizes] of Object.entries(read.shapes ?? {})) {
      layer[name] = weights.slice(start, start + product(sizes));
      start += product(sizes);
    }
    shapes.push(layer.outShape);
    return layers.push(layer); // The place of its output.
  };
  const addAll = (rows, first, depth, branch) => rows.reduce((source, row) => {
    const { branches } = KINDS[row.kind];
    if (!branches) return add(row, [source], depth, branch);
    const block = { name: row.name, identity: branches.some((inner) => row[inner].length === 0) };
    const fork = add({ ...block, kind: "fork", shape: shapes[source] }, [source], depth, branch);
    const ends = branches.map((inner) => addAll(row[inner], fork, depth + 1, inner));
    return add({ ...block, kind: "add", shape: row.shape }, ends, depth, branch);
  }, first);
  addAll(run.layers, 0, 0);
  return { model: run.model, loss: run.loss, imageShape: run.imageShape, layers };
}

function product(sizes) {
  return sizes.reduce((a, b) => a * b, 1);
}

/** The shape of a layer's weights W: its kernel's, without a last row that is the bias. */
function weightsShape({ ones, shapes: { kernel } }) {
  return ones ? [kernel[0] - 1, kernel[1]] : kernel;
}

/** The place of the number with the largest size. */
function largestAt(values) {
  let best = 0;
  for (let n = 1; n < values.length; n++) if (Math.abs(values[n]) > Math.abs(values[best])) best = n;
  return best;
}

// ---- Layers: forward(layer, x) → {y, cache};  backward(layer, x, y, cache, dy) → {dx, ...} ----
// With dx come the gradients of the layer's arrays by their names. A layer that chooses among numbers
// also has held(x, y, cache, layer): its output at x with the choices of the pass that gave y and the
// cache. It has no kinks. page/build.py reads the names in KINDS: one to a line.
//
// A layer also says what its card shows: `isPlain` if it changes no number; mask(layer, x), the factor of
// a gradient; `winners` if its cache holds the places of the largest numbers; `ones` if the last row of
// its kernel is the bias.

const unchanged = (layer, x) => ({ y: x }), unchangedGradient = (layer, x, y, cache, dy) => ({ dx: dy });

const KINDS = {
  flatten: { forward: unchanged, backward: unchangedGradient, isPlain: true },
  dropout: { forward: unchanged, backward: unchangedGradient, isPlain: true }, // Only training drops.
  residual: { branches: ["chain", "shortcut"] }, // Shown as its layers, between those two:
  fork: { forward: unchanged, backward: unchangedGradient },
  // y = F + S: each summand has the gradient dy.
  add: { forward: (layer, x, other) => ({ y: x.map((value, n) => value + other[n]) }), backward: unchangedGradient },
  relu: {
    forward: (layer, x) => ({ y: x.map((value) => (value > 0 ? value : 0)) }),
    backward: (layer, x, y, cache, dy) => ({ dx: dy.map((value, n) => (y[n] > 0 ? value : 0)) }),
    held: (x, y) => x.map((value, n) => (y[n] > 0 ? value : 0)),
    mask: (layer, x) => Number(x > 0), // At the kink 0.
  },
  leaky_relu: {
    forward: ({ slope }, x) => ({ y: x.map((value) => (value >= 0 ? value : slope * value)), cache: x }),
    backward: ({ slope }, x, y, cache, dy) => ({ dx: dy.map((value, n) => (x[n] >= 0 ? value : slope * value)) }),
    held: (x, y, before, { slope }) => x.map((value, n) => (before[n] >= 0 ? value : slope * value)),
    mask: ({ slope }, x) => (x >= 0 ? 1 : slope), // At the kink 1.
  },
  sigmoid: { forward: sigmoidForward, backward: (layer, x, y, cache, dy) => ({ dx: dy.map((d, n) => d * y[n] * (1 - y[n])) }) },
  tanh: {
    forward: (layer, x) => ({ y: x.map(Math.tanh) }),
    backward: (layer, x, y, cache, dy) => ({ dx: dy.map((d, n) => d * (1 - y[n] * y[n])) }),
  },
  gelu: {
    forward: (layer, x) => ({ y: x.map((value) => (value * (1 + geluTanh(value))) / 2) }),
    backward: (layer, x, y, cache, dy) => ({ dx: dy.map((d, n) => d * geluSlope(x[n])) }),
  },
  softmax: { forward: softmaxForward, backward: softmaxBackward },
  dense: { forward: denseForward, backward: denseBackward },
  dense_with_ones: { forward: denseForward, backward: denseBackward, ones: true },
  conv: { forward: convolutionForward, backward: convolutionBackward },
  max_pool: {
    forward: maxPoolForward,
    backward: maxPoolBackward,
    held: (x, y, winners) => y.map((_, n) => x[winners[n]]),
    winners: true,
  },
  average_pool: { forward: averageForward, backward: averageBackward },
  adaptive_average_pool: { forward: averageForward, backward: averageBackward },
  global_average_pool: { forward: averageForward, backward: averageBackward },
  batch_norm: { forward: batchNormForward, backward: batchNormBackward },
  layer_norm: { forward: layerNormForward, backward: layerNormBackward },
  local_response_norm: { forward: responseNormForward, backward: responseNormBackward },
  // y = (x - μ) / σ of each number of a row, or of red, green and blue; grey stands for all three.
  normalize: {
    forward: (layer, x) => ({ y: Float64Array.from({ length: product(layer.outShape) }, (_, n) =>
      (x[colourOf(layer, n)] - layer.mean[n % layer.mean.length]) / layer.std[n % layer.std.length]) }),
    backward: (layer, x, y, cache, dy) => {
      const dx = new Float64Array(x.length);
      dy.forEach((d, n) => { dx[colourOf(layer, n)] += d / layer.std[n % layer.std.length]; });
      return { dx };
    },
  },
};

if (typeof OWN_KINDS === "object") Object.assign(KINDS, OWN_KINDS); // From run.js: the user's own layers.

/** The number of x that a normalized number comes from. */
function colourOf({ inShape }, n) {
  return inShape[2] === 1 ? Math.floor(n / 3) : n;
}

/** z_k = Σ_d x_d W_dk + b_k. With a column of ones, b is the last row of W. */
function denseForward(layer, x) {
  const inputs = product(layer.inShape), outputs = layer.outShape[0], W = layer.kernel;
  const z = new Float64Array(outputs);
  if (layer.bias) z.set(layer.bias);
  if (layer.ones) z.set(W.subarray(inputs * outputs));
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
  if (layer.ones) dW.set(dz, inputs * outputs);
  return { dx, kernel: dW, bias: layer.bias && dz.slice() };
}

/**
 * The numbers that the loops of a convolution need: x with its padding's zeros, the length of its rows, the
 * window, the steps, and the numbers of input and output channels of a group.
 */
function convolutionSizes({ inShape, outShape, shapes, padding, strides, feature_group_count: groups }, x) {
  const [height, width, channels] = inShape, [rows, columns, outputs] = outShape, [[top, bottom], [left, right]] = padding;
  const [tall, wide, inputs] = shapes.kernel, [down, across] = strides, row = (left + width + right) * channels;
  const inside = (y) => (top + y) * row + left * channels; // Where row y of x begins.
  let padded = x;
  if (top || bottom || left || right) {
    padded = new Float64Array((top + height + bottom) * row);
    for (let y = 0; y < height; y++) padded.set(x.subarray(y * width * channels, (y + 1) * width * channels), inside(y));
  }
  return { groups, height, length: width * channels, channels, rows, columns, outputs, tall, wide, inputs, down, across, row, inside, padded, each: outputs / groups };
}

/** z_ijk = Σ_{a,a',c} x'_{si+a,tj+a',c} W_{a,a',c,k} + b_k, x' with its padding; c in the group of k. */
function convolutionForward(layer, x) {
  const { groups, channels, rows, columns, outputs, tall, wide, inputs, down, across, row, padded, each } = convolutionSizes(layer, x);
  const W = layer.kernel, { bias } = layer, z = new Float64Array(rows * columns * outputs);
  for (let i = 0; i < rows; i++) {
    for (let j = 0; j < columns; j++) {
      const out = (i * columns + j) * outputs;
      if (bias) z.set(bias, out);
      for (let a = 0; a < tall; a++) for (let b = 0; b < wide; b++) {
        const from = (i * down + a) * row + (j * across + b) * channels, weights = (a * wide + b) * inputs;
        for (let c = 0; c < channels; c++) {
          const value = padded[from + c];
          if (value === 0) continue;
          const group = groups === 1 ? 0 : Math.floor(c / inputs), first = group * each;
          const at = (weights + c - group * inputs) * outputs;
          for (let k = first; k < first + each; k++) z[out + k] += value * W[at + k];
        }
      }
    }
  }
  return { y: z };
}

/**
 * dW_{a,a',c,k} = Σ_ij x'_{si+a,tj+a',c} dz_ijk,  db_k = Σ_ij dz_ijk,
 * dx'_uvc = Σ dz_ijk W_{a,a',c,k} over all i, a with si + a = u, all j, a' with tj + a' = v, and k.
 */
function convolutionBackward(layer, x, z, cache, dz) {
  const sizes = convolutionSizes(layer, x), { groups, channels, rows, columns, outputs, tall, wide, inputs } = sizes;
  const { down, across, row, padded, each, height, length, inside } = sizes;
  const W = layer.kernel, dW = new Float64Array(W.length), db = new Float64Array(outputs);
  const dPadded = new Float64Array(padded.length), used = new Int32Array(outputs), d = new Float64Array(outputs);
  const ends = new Int32Array(outputs / each); // Where each group's channels end among the used ones.
  for (let i = 0; i < rows; i++) {
    for (let j = 0; j < columns; j++) {
      const out = (i * columns + j) * outputs;
      let count = 0; // Behind a pool most are zero: only the others are visited.
      for (let k = 0; k < outputs; k++) {
        const value = dz[out + k];
        if (value !== 0) {
          db[k] += value;
          d[count] = value;
          used[count++] = k;
        }
        if ((k + 1) % each === 0) ends[(k + 1) / each - 1] = count;
      }
      if (count === 0) continue;
      for (let a = 0; a < tall; a++) for (let b = 0; b < wide; b++) {
        const from = (i * down + a) * row + (j * across + b) * channels, weights = (a * wide + b) * inputs;
        for (let c = 0; c < channels; c++) {
          const value = padded[from + c], group = groups === 1 ? 0 : Math.floor(c / inputs), end = ends[group];
          const at = (weights + c - group * inputs) * outputs;
          let sum = 0;
          for (let m = group ? ends[group - 1] : 0; m < end; m++) {
            dW[at + used[m]] += value * d[m];
            sum += d[m] * W[at + used[m]];
          }
          dPadded[from + c] += sum;
        }
      }
    }
  }
  const dx = new Float64Array(x.length);
  for (let y = 0; y < height; y++) dx.set(dPadded.subarray(inside(y), inside(y) + length), y * length);
  return { dx, kernel: dW, bias: layer.bias && db };
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

/** t = tanh u with u = √(2/π) (x + 0.044715 x³). */
function geluTanh(x) {
  return Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3));
}

/** The derivative of x (1 + t) / 2: (1 + t) / 2 + x (1 - t²) u′ / 2 with u′ = √(2/π) (1 + 0.134145 x²). */
function geluSlope(x) {
  const t = geluTanh(x);
  return (1 + t + x * (1 - t * t) * Math.sqrt(2 / Math.PI) * (1 + 3 * 0.044715 * x * x)) / 2;
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

/** The rows and the columns of each place of an average pool: [[from, to], ...], without `to`. */
function cellsOf({ kind, window, stride, size, inShape, outShape }) {
  return [0, 1].map((axis) => {
    const old = inShape[axis];
    if (kind === "global_average_pool") return [[0, old]];
    return Array.from({ length: outShape[axis] }, (_, i) => kind === "average_pool"
      ? [i * stride, i * stride + window] : [Math.floor((i * old) / size), Math.ceil(((i + 1) * old) / size)]);
  });
}

/** Calls each(out, at, share) for every output, every input in its window, and 1 / their number. */
function eachOfAverages(layer, each) {
  const [, width, channels] = layer.inShape, [rows, columns] = cellsOf(layer);
  let out = 0;
  for (const [top, bottom] of rows) for (const [left, right] of columns) {
    const share = 1 / ((bottom - top) * (right - left));
    for (let c = 0; c < channels; c++, out++) {
      for (let u = top; u < bottom; u++) for (let v = left; v < right; v++) each(out, (u * width + v) * channels + c, share);
    }
  }
}

/** y_ijc: the mean of each window. */
function averageForward(layer, x) {
  const y = new Float64Array(product(layer.outShape));
  eachOfAverages(layer, (out, at, share) => { y[out] += share * x[at]; });
  return { y };
}

/** Each number of a window of n gets dy / n. */
function averageBackward(layer, x, y, cache, dy) {
  const dx = new Float64Array(x.length);
  eachOfAverages(layer, (out, at, share) => { dx[at] += share * dy[out]; });
  return { dx };
}

/** y = γ x̂ + β with x̂ = (x - μ) / √(v + ε), μ and v of training: a factor and a summand of each channel. */
function batchNormForward({ scale, bias, mean, var: variance, epsilon }, x) {
  const channels = scale.length, normal = x.map((value, n) => (value - mean[n % channels]) / Math.sqrt(variance[n % channels] + epsilon));
  return { y: normal.map((value, n) => scale[n % channels] * value + bias[n % channels]), cache: normal };
}

/** dx = γ dy / √(v + ε),  dγ = Σ dy x̂,  dβ = Σ dy, over all places. */
function batchNormBackward({ scale, var: variance, epsilon }, x, y, normal, dy) {
  const channels = scale.length, dx = dy.map((d, n) => (scale[n % channels] * d) / Math.sqrt(variance[n % channels] + epsilon));
  return { dx, ...normGradients(channels, normal, dy) };
}

function normGradients(channels, normal, dy) {
  const scale = new Float64Array(channels), bias = new Float64Array(channels);
  dy.forEach((d, n) => {
    scale[n % channels] += d * normal[n];
    bias[n % channels] += d;
  });
  return { scale, bias };
}

/** y = γ x̂ + β with x̂ = r (x - μ) and r = 1 / √(v + ε), μ and v over the last axis. The cache: x̂, and r. */
function layerNormForward({ scale, bias, epsilon }, x) {
  const size = scale.length, normal = new Float64Array(x.length), r = new Float64Array(x.length / size);
  for (let place = 0; place < r.length; place++) {
    const part = x.subarray(place * size, (place + 1) * size), mean = part.reduce((a, b) => a + b, 0) / size;
    r[place] = 1 / Math.sqrt(part.reduce((sum, value) => sum + (value - mean) ** 2, 0) / size + epsilon);
    for (let c = 0; c < size; c++) normal[place * size + c] = r[place] * (part[c] - mean);
  }
  return { y: normal.map((value, n) => scale[n % size] * value + bias[n % size]), cache: { normal, r } };
}

/** dx = r (dx̂ - mean(dx̂) - x̂ mean(dx̂ x̂)) with dx̂ = γ dy; dγ and dβ as a batch norm's. */
function layerNormBackward({ scale }, x, y, { normal, r }, dy) {
  const size = scale.length, dNormal = dy.map((d, n) => scale[n % size] * d), dx = new Float64Array(x.length);
  for (let place = 0; place < r.length; place++) {
    const { mean, inner } = layerNormMeans(place, dNormal, normal, size);
    for (let n = place * size; n < (place + 1) * size; n++) dx[n] = r[place] * (dNormal[n] - mean - normal[n] * inner);
  }
  return { dx, ...normGradients(size, normal, dy) };
}

/** The means of dx̂ and of dx̂ x̂ at a place. */
function layerNormMeans(place, dNormal, normal, size) {
  let mean = 0, inner = 0;
  for (let n = place * size; n < (place + 1) * size; n++) {
    mean += dNormal[n] / size;
    inner += (dNormal[n] * normal[n]) / size;
  }
  return { mean, inner };
}

/** The sum of the numbers of `below` channels below each channel to `above` above it. */
function neighbourSums(values, channels, below, above) {
  return values.map((_, n) => {
    const c = n % channels, from = n - Math.min(below, c), to = n + Math.min(above, channels - 1 - c);
    let sum = 0;
    for (let m = from; m <= to; m++) sum += values[m];
    return sum;
  });
}

/** y_c = x_c s_c^-β with s_c = k + α Σ x², over the n channels around c. The cache is s. */
function responseNormForward({ inShape, k, n, alpha, beta }, x) {
  const sums = neighbourSums(x.map((value) => value * value), inShape.at(-1), n >> 1, (n - 1) >> 1);
  const s = sums.map((sum) => k + alpha * sum);
  return { y: x.map((value, at) => value * s[at] ** -beta), cache: s };
}

/** dx_c = dy_c s_c^-β - 2 α β x_c Σ dy y / s, over the channels that see c. */
function responseNormBackward({ inShape, n, alpha, beta }, x, y, s, dy) {
  const shared = neighbourSums(dy.map((d, at) => (d * y[at]) / s[at]), inShape.at(-1), (n - 1) >> 1, n >> 1);
  return { dx: dy.map((d, at) => d * s[at] ** -beta - 2 * alpha * beta * x[at] * shared[at]) };
}

// ---- The whole network ----

/**
 * The forward pass of one picture.
 *
 * values[0] is the picture and values[n + 1] the output of layer n; the last one is the logits.
 * With `from` and `before`, `image` is the input of only layer `from`, or the logits after the last
 * one, and the other numbers before that layer are those of `before`. If `held`, ReLUs and pools
 * choose what they chose in `before`.
 */
function forward(network, image, from = 0, before = null, held = false) {
  const values = before ? before.values.slice(0, from + 1) : [image];
  const caches = before ? before.caches.slice(0, from) : [];
  if (from === network.layers.length) values[from] = image;
  for (let n = from; n < network.layers.length; n++) {
    const layer = network.layers[n], kind = KINDS[layer.kind], [source, other] = layer.sources;
    const x = n === from ? image : values[source];
    const { y, cache } = held && kind.held
      ? { y: kind.held(x, before.values[n + 1], before.caches[n], layer) }
      : kind.forward(layer, x, values[other]);
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
 * The backward pass: d[n] is the gradient of values[n], inputs[n] that of layer n's input, and
 * gradients[n] has those of its arrays. A value that two layers read has the sum of both gradients.
 */
function backward(network, pass, label) {
  const count = network.layers.length, d = new Array(count + 1), inputs = new Array(count), gradients = new Array(count);
  const { dp, dz } = lossGradient(network, pass.p, label);
  d[count] = dz;
  for (let n = count - 1; n >= 0; n--) {
    const layer = network.layers[n], { sources } = layer, x = pass.values[sources[0]];
    const { dx, ...arrays } = KINDS[layer.kind].backward(layer, x, pass.values[n + 1], pass.caches[n], d[n + 1]);
    for (const name of layer.fixed ?? []) delete arrays[name]; // A layer norm that has no γ or no β.
    inputs[n] = dx;
    gradients[n] = arrays;
    for (const source of sources) d[source] = d[source] ? d[source].map((sum, at) => sum + dx[at]) : dx;
  }
  return { d, inputs, gradients, dp };
}

/** A copy of the network after one step of gradient descent: W ← W - η dW for every array. */
function stepped(network, gradients, rate) {
  const layers = network.layers.map((layer, n) => {
    const moved = Object.entries(gradients[n]).filter(([, dv]) => dv).map(([name, dv]) =>
      [name, layer[name].map((value, at) => value - rate * dv[at])]);
    return { ...layer, ...Object.fromEntries(moved) };
  });
  return { ...network, layers };
}
