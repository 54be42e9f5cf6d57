"use strict";
// The verdicts of the page's check, of right and wrong gradients: DATA is [[image, label, places]].

const right = Object.fromEntries(Object.entries(KINDS).map(([kind, { backward }]) => [kind, backward]));
const changed = (kind, change) => ({ [kind]: (...given) => {
  const found = right[kind](...given);
  return { ...found, ...change(found) };
} });
const pool = (share) => ({ max_pool: (layer, x, y, winners, dy) => {
  const dx = new Float64Array(x.length), { inShape, outShape, window, stride } = layer;
  dy.forEach((d, n) => {
    const [i, j, c] = indicesOf(outShape, n), equal = [];
    for (let a = 0; a < window; a++) for (let b = 0; b < window; b++) {
      const at = ((i * stride + a) * inShape[1] + j * stride + b) * inShape[2] + c;
      if (x[at] === y[n]) equal.push(at);
    }
    share(equal, d).forEach((part, m) => { dx[equal[m]] += part; });
  });
  return { dx };
} });
// Backward passes that are wrong, by name: {kind of layer: what it returns instead}.
const WRONG = {
  "a tie goes to the last": pool((equal, d) => equal.map((_, m) => (m === equal.length - 1 ? d : 0))),
  "a tie goes to all": pool((equal, d) => equal.map(() => d)),
  "a tie is shared": pool((equal, d) => equal.map(() => d / equal.length)),
  "no mask": { relu: (layer, x, y, cache, dy) => ({ dx: dy }) },
  "the gradient's mask": { relu: (layer, x, y, cache, dy) => ({ dx: dy.map((d) => Math.max(d, 0)) }) },
  "half a bias": changed("conv", ({ bias }) => ({ bias: bias?.map((d) => d / 2) })),
  "a kernel a thousandth too large": changed("conv", ({ kernel }) => ({ kernel: kernel.map((d) => 1.001 * d) })),
  "a flipped dX": changed("conv", ({ dx }) => ({ dx: dx.slice().reverse() })),
  "a dX a thousandth too large": changed("dense", ({ dx }) => ({ dx: dx.map((d) => 1.001 * d) })),
  "no 1 - y": { sigmoid: (layer, x, y, cache, dy) => ({ dx: dy.map((d, n) => d * y[n]) }) },
};

const network = readNetwork(RUN), verdicts = {}, missed = [];
// Not within the check's own tolerance of each other.
const apart = (a, b) => Math.abs(a - b) > 3e-4 * Math.max(Math.abs(a), Math.abs(b), 1e-4);
for (const [image, label, places] of DATA) {
  const pass = forward(network, Float64Array.from(image)), state = { network, pass, label };
  const passes = { right: backward(network, pass, label) };
  for (const [name, wrong] of Object.entries(WRONG)) {
    for (const kind in KINDS) KINDS[kind].backward = wrong[kind] ?? right[kind];
    passes[name] = backward(network, pass, label);
  }
  for (const kind in KINDS) KINDS[kind].backward = right[kind];
  for (const n of network.layers.keys()) for (const array of ["value", "kernel", "scale", "bias"]) {
    const of = ({ inputs, gradients }) => (array === "value" ? inputs[n] : gradients[n][array]);
    if (!of(passes.right)) continue;
    for (const place of places) {
      const index = Math.floor(place * of(passes.right).length);
      for (const [name, found] of Object.entries(passes)) {
        const counts = verdicts[name] ??= { agree: 0, kink: 0, differ: 0 }, derived = of(found)[index];
        if (name !== "right" && (counts.differ === 8 || !apart(derived, of(passes.right)[index]))) continue;
        const { verdict } = checkDerivative(state, { n, array, index }, derived);
        counts[verdict]++;
        if ((verdict === "differ") !== (name !== "right")) missed.push([name, n, array, index, verdict]);
      }
    }
  }
}
console.log(JSON.stringify({ verdicts, missed }));
