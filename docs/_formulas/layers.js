"use strict";
// The layers' formulas, and numbers to try them on: the twin of jaxnets/course/formulas/layers.py.

const SIDE = 4; // Of all axes, where they are to be equal.
const OTHERS = 2; // Draws of sizes, besides the two that the layer has.
const KEPT = 0.6; // Of a mask.

/** Random numbers from 0 to 1, the same for the same seed (mulberry32). */
function randomOf(seed) {
  let state = Math.imul(seed, 0x9e3779b1);
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

class Layer {
  /** From a table of formulas.toml. */
  constructor({ sizes, letters, drawn, forward, backward, follows = {}, square = null, scalars = {}, kinds = {}, seeds = 2 }) {
    Object.assign(this, { sizes, letters, drawn, follows, square, scalars, kinds, seeds, kept: new Map() });
    this.axes = {}; // The sizes of each array, by their names.
    for (const [name, row] of Object.entries(drawn)) this.axes[name] = [...row].map((one) => letters[one]);
    for (const text of [...forward, ...backward]) {
      const [name, row = ""] = text.split(" ")[0].split("_");
      this.axes[name] = [...row].map((one) => letters[one]);
    }
    const ranks = Object.fromEntries(Object.entries(this.axes).map(([name, row]) => [name, row.length]));
    this.names = { ranks, scalars: new Set([...Object.keys(sizes), ...Object.keys(scalars)]) };
    this.steps = forward.map((text) => parse(text, this.names));
    this.gradients = Object.fromEntries(backward.map((text) => parse(text, this.names)).map((one) => [one.name, one]));
    this.out = this.steps.at(-1).name;
  }

  /** What the formula of a gradient may name: not itself, nor the gradients after it. */
  namesBefore(name) {
    const all = Object.keys(this.gradients), later = all.slice(all.indexOf(name));
    const ranks = Object.fromEntries(Object.entries(this.names.ranks).filter(([one]) => !later.includes(one)));
    return { ...this.names, ranks };
  }

  /** What the names of a formula stand for, without what follows from the given arrays. */
  values(arrays, sizes) {
    const letters = Object.fromEntries(Object.entries(this.letters).map(([letter, size]) => [letter, sizes[size]]));
    return { arrays: { ...arrays }, scalars: { ...this.scalars, ...sizes }, sizes: letters };
  }

  /** The same with the arrays of some formulas, each of which may use those before. */
  computed(values, formulas) {
    const found = { ...values, arrays: { ...values.arrays } };
    for (const formula of formulas) found.arrays[formula.name] = valueOf(formula, found);
    return found;
  }

  /** Numbers for all arrays that are given, and what follows from them. */
  whole(sizes, seed, ties = false) {
    const key = JSON.stringify([sizes, seed, ties]);
    if (!this.kept.has(key)) {
      const random = randomOf(seed);
      const given = Object.fromEntries(Object.keys(this.drawn).map((name) =>
        [name, drawnArray(random, this.kinds[name], this.axes[name].map((one) => sizes[one]), ties)]));
      this.kept.set(key, this.computed(this.values(given, sizes), [...this.steps, ...Object.values(this.gradients)]));
    }
    return this.kept.get(key);
  }

  /** Sizes at which a mistake of axes does not show. */
  get equalSizes() {
    return this.square ?? this.followed(Object.fromEntries(Object.keys(this.sizes).map((name) => [name, SIDE])));
  }

  /** Sizes at which a number in place of a size shows, drawn by the formula's text: nobody can aim at them. */
  otherSizes(text) {
    const random = randomOf([...text].reduce((hash, sign) => Math.imul(hash ^ sign.codePointAt(0), 0x01000193), 0x811c9dc5));
    const draw = () => Object.fromEntries(Object.keys(this.sizes).map((name) => [name, 2 + Math.floor((SIDE - 1) * random())]));
    return [this.equalSizes, ...Array.from({ length: OTHERS }, () => this.followed(draw()))];
  }

  /** The sizes with those that others decide, such as that of a convolution's input. */
  followed(sizes) {
    const found = { ...sizes }, names = { ranks: {}, scalars: new Set(Object.keys(sizes)) };
    for (const [size, text] of Object.entries(this.follows)) {
      [found[size]] = valueOf(parse(`${size} = ${text}`, names), { arrays: {}, scalars: found, sizes: {} }).data;
    }
    return found;
  }
}

/** An array of a kind of formulas.toml: shares of 1, a mask, numbers with ties, or any. */
function drawnArray(random, kind, shape, ties) {
  const count = shape.reduce((product, size) => product * size, 1);
  const normal = () => Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random());
  const filled = (draw) => Float64Array.from({ length: count }, draw);
  if (kind === "shares") {
    const data = filled(() => 0.2 + 0.8 * random()), width = shape.at(-1);
    for (let at = 0; at < count; at += width) {
      const row = data.subarray(at, at + width), sum = row.reduce((a, b) => a + b, 0);
      row.forEach((x, n) => { row[n] = x / sum; });
    }
    return { shape, data };
  }
  if (kind === "mask") {
    const data = filled(() => (random() < KEPT ? 1 : 0));
    [data[0], data[1], data[count - 1]] = [1, 1, 0];
    return { shape, data };
  }
  if (kind === "ties" && ties) {
    const data = filled(() => Math.floor(5 * random()) - 2);
    data[0] = 0;
    return { shape, data };
  }
  return { shape, data: filled(normal) };
}
