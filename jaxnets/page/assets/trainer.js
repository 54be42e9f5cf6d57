"use strict";
// Training: batches, their gradients by the backward passes of network.js, and the step.
//
// It runs in a worker, so that drawing stays quick. A served worker starts without the page's scripts.
if (typeof importScripts === "function" && typeof RUN === "undefined") importScripts("run.js", "network.js");

/**
 * Wrong backward passes to choose from: each omits one factor or one term, as learners do.
 * `backward` replaces that of a kind of layer; the others change the step.
 */
const BUGS = {
  mask: { kind: "relu", backward: (layer, x, y, cache, dy) => ({ dx: dy }) },
  winners: {
    kind: "max_pool", // Every number of the window counts as the largest one.
    backward: (layer, x, y, winners, dy) => {
      const { inShape: [, width, channels], outShape: [rows, columns], window, stride } = layer, dx = new Float64Array(x.length);
      for (let i = 0; i < rows; i++) for (let j = 0; j < columns; j++) for (let a = 0; a < window; a++) {
        const from = ((i * stride + a) * width + j * stride) * channels, out = (i * columns + j) * channels;
        for (let n = 0; n < window * channels; n++) dx[from + n] += dy[out + (n % channels)];
      }
      return { dx };
    },
  },
  mean: { noMean: true }, // The loss is the mean over the batch; its 1/B is forgotten.
  sign: { sign: 1 }, // W + η dW: uphill.
};
/** A dropout that drops: y = m x / (1 - rate), m = 0 with probability rate; dx = m dy / (1 - rate). */
function dropping(random) {
  return {
    forward: ({ rate }, x) => {
      const cache = x.map(() => (random() < rate ? 0 : 1 / (1 - rate)));
      return { y: x.map((value, n) => value * cache[n]), cache };
    },
    backward: (layer, x, y, cache, dy) => ({ dx: dy.map((value, n) => value * cache[n]) }),
  };
}

const STILL = KINDS.dropout;
const RIGHT = Object.fromEntries(Object.entries(KINDS).map(([name, kind]) => [name, kind.backward]));

/** Numbers in [0, 1) from a seed: mulberry32. */
function randomNumbers(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

const FIRST = { kernel: 0, bias: 0, scale: 1 };

/** The network with new weights: He's kernels, from N(0, 2 / inputs); biases 0, γ 1. */
function fresh(network, seed) {
  const random = randomNumbers(seed);
  const normal = () => Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random());
  const layers = network.layers.map((layer) => {
    const drawn = {};
    for (const [name, sizes] of Object.entries(layer.shapes ?? {})) {
      if (!(name in FIRST)) continue; // A user's own layer keeps its numbers.
      drawn[name] = new Float64Array(product(sizes)).fill(FIRST[name]);
    }
    if (layer.kernel) {
      const outputs = layer.outShape.at(-1), inputs = layer.kernel.length / outputs;
      const last = layer.ones ? outputs : 0; // The bias.
      for (let n = 0; n < layer.kernel.length - last; n++) drawn.kernel[n] = normal() * Math.sqrt(2 / inputs);
    }
    return { ...layer, ...drawn };
  });
  return { ...network, layers };
}

/** Trains a network on pictures of bytes, or on rows of numbers, in one array. */
class Trainer {
  constructor(network, examples) {
    Object.assign(this, { network, steps: 0 });
    this.take(examples);
  }

  /** Takes other examples: the first `count` are for training, and the rest is held out. */
  take({ images, labels, count }) {
    Object.assign(this, { images, labels, count, order: [], heldOut: labels.length - count });
  }

  /**
   * Starts anew from `network`; its weights will be changed in place.
   *
   * `rate` is the learning rate, `momentum` that of v ← momentum v + dW, W ← W - rate v; `bug` names
   * one of BUGS, or none.
   */
  begin(network, { rate, momentum, batch, seed, bug }) {
    Object.assign(this, { network, rate, momentum, batch, steps: 0, seen: 0, order: [], random: randomNumbers(seed + 1) });
    this.wrong = BUGS[bug] ?? {};
    this.drops = dropping(randomNumbers(seed + 2));
    for (const [name, kind] of Object.entries(KINDS)) kind.backward = this.wrong.kind === name ? this.wrong.backward : RIGHT[name];
    const zeros = () => network.layers.map((layer) => Object.fromEntries(
      Object.keys(layer.shapes ?? {}).filter((name) => !layer.fixed?.includes(name)).map((name) => [name, new Float64Array(layer[name].length)])));
    this.velocity = zeros();
    this.gradient = zeros();
  }

  imageAt(index) {
    const size = product(this.network.imageShape), largest = this.images instanceof Uint8Array ? 255 : 1;
    return Float64Array.from(this.images.subarray(size * index, size * (index + 1)), (value) => value / largest);
  }

  /** The pictures of the next batch: every epoch has its own order; its last batch may be short. */
  nextBatch() {
    if (!this.order.length) {
      this.order = Array.from({ length: this.count }, (_, n) => n);
      for (let n = this.count - 1; n > 0; n--) {
        const other = Math.floor(this.random() * (n + 1));
        [this.order[n], this.order[other]] = [this.order[other], this.order[n]];
      }
    }
    return this.order.splice(0, this.batch);
  }

  /** One step on a batch; returns its mean loss before the step. */
  step(batch = this.nextBatch()) {
    const { network, gradient, velocity, momentum, rate } = this, share = this.wrong.noMean ? 1 : 1 / batch.length;
    for (const arrays of gradient) for (const sum of Object.values(arrays)) sum.fill(0);
    let loss = 0;
    KINDS.dropout = this.drops;
    for (const index of batch) {
      const pass = forward(network, this.imageAt(index)), label = this.labels[index];
      loss += lossOf(network, pass, label) / batch.length;
      const { gradients } = backward(network, pass, label);
      gradient.forEach((arrays, n) => {
        for (const [name, sum] of Object.entries(arrays)) {
          const own = gradients[n][name];
          for (let at = 0; at < sum.length; at++) sum[at] += share * own[at];
        }
      });
    }
    KINDS.dropout = STILL;
    const sign = this.wrong.sign ?? -1;
    network.layers.forEach((layer, n) => {
      for (const [name, v] of Object.entries(velocity[n])) {
        const weights = layer[name], dv = gradient[n][name];
        for (let at = 0; at < v.length; at++) {
          v[at] = momentum * v[at] + dv[at];
          weights[at] += sign * rate * v[at];
        }
      }
    });
    this.steps++;
    this.seen += batch.length;
    return loss;
  }

  /** The mean loss and the accuracy on the first `size` held-out pictures. */
  test(size) {
    let loss = 0, right = 0;
    for (let index = this.count; index < this.count + size; index++) {
      const pass = forward(this.network, this.imageAt(index));
      loss += lossOf(this.network, pass, this.labels[index]) / size;
      right += Number(largestAt(pass.p) === this.labels[index]);
    }
    return { loss, accuracy: right / size };
  }
}

// ---- In the worker ----

const BURST = 40, REPORT = 250, TEST_TIME = 400; // Milliseconds: of steps at a stretch, between reports, of a test.

/** Answers the page's messages: "load", "begin", "go", "pause", "step". */
function serveTraining() {
  let trainer = null, training = 0, timer = 0, delay = 0, reported = 0, tested = null, size = 0, testEnd = 0, testCost = 0, loss = null;

  const report = () => {
    const now = performance.now();
    if (tested === null || now - testEnd > 4 * testCost) { // A fifth of the time at most.
      tested = { steps: trainer.steps, ...trainer.test(size) };
      testEnd = performance.now();
      testCost = testEnd - now;
    }
    reported = performance.now();
    const copies = (trees) => trees.map((arrays) => Object.fromEntries(Object.entries(arrays).map(([name, x]) => [name, x.slice()])));
    const weights = copies(trainer.velocity.map((arrays, n) =>
      Object.fromEntries(Object.keys(arrays).map((name) => [name, trainer.network.layers[n][name]]))));
    const gradient = copies(trainer.gradient);
    const moved = [weights, gradient].flat().flatMap((arrays) => Object.values(arrays).map((x) => x.buffer));
    const { steps, seen, count } = trainer;
    postMessage({ training, steps, epochs: seen / count, loss, tested, size, weights, gradient, running: timer !== 0 }, moved);
  };
  const run = () => {
    const from = performance.now();
    do loss = trainer.step(); while (!delay && performance.now() - from < BURST);
    timer = setTimeout(run, delay);
    if (delay || performance.now() - reported > REPORT) report();
  };
  const pause = () => {
    clearTimeout(timer);
    timer = 0;
  };
  const begin = (settings) => {
    pause();
    training = settings.training;
    trainer.begin(fresh(readNetwork(RUN), settings.seed), settings);
    const few = Math.min(10, trainer.heldOut);
    trainer.test(few); // The browser compiles functions that it has run.
    const from = performance.now();
    trainer.test(few);
    size = Math.max(few, Math.min(trainer.heldOut, Math.floor((few * TEST_TIME) / (performance.now() - from + 0.1))));
    loss = tested = null;
    report();
  };

  onmessage = ({ data: { kind, ...given } }) => {
    if (kind === "load") trainer = new Trainer(readNetwork(RUN), given);
    else if (kind === "begin") begin(given);
    else if (kind === "go") {
      pause();
      delay = given.delay;
      run();
    } else {
      pause();
      if (kind === "step") loss = trainer.step();
      tested = null;
      report();
    }
  };
}

if (typeof importScripts === "function") serveTraining();
