"use strict";
// Computes a formula on small arrays, {shape, data}: the twin of jaxnets/course/formulas/values.py.
//
// `values` are {arrays, scalars, sizes}: what the names stand for, and the size of each letter. The
// value of a part is {letters, data}: an array with a letter for each axis.

const MOST_NUMBERS = 10_000_000; // Of all combinations of a term's letters: a formula may come from anyone.

class TooLargeError extends Error {}

const sigmoid = (x) => 1 / (1 + Math.exp(-x));
const GELU_SCALE = Math.sqrt(2 / Math.PI), GELU_CUBIC = 0.044715;
const geluTanh = (x) => Math.tanh(GELU_SCALE * (x + GELU_CUBIC * x ** 3));
const FUNCTIONS = {
  exp: Math.exp, log: Math.log, sqrt: Math.sqrt, max: Math.max, min: Math.min, "σ": sigmoid,
  "σ′": (x) => sigmoid(x) * (1 - sigmoid(x)), tanh: Math.tanh, "tanh′": (x) => 1 - Math.tanh(x) ** 2,
  relu: (x) => Math.max(x, 0), "relu′": (x) => (x > 0 ? 1 : 0), gelu: (x) => (x * (1 + geluTanh(x))) / 2,
  "gelu′": (x) => {
    const t = geluTanh(x);
    return (1 + t) / 2 + (x * (1 - t ** 2) * GELU_SCALE * (1 + 3 * GELU_CUBIC * x ** 2)) / 2;
  },
};
const COMPARISONS = {
  ">": (a, b) => a > b, "≥": (a, b) => a >= b, "<": (a, b) => a < b, "≤": (a, b) => a <= b,
  "=": (a, b) => a === b, "≠": (a, b) => a !== b,
};

const sizeOf = (letters, sizes) => letters.reduce((product, letter) => product * sizes[letter], 1);
const unique = (letters) => [...new Set(letters)];

function expectSmall(letters, sizes) {
  if (sizeOf(unique(letters), sizes) > MOST_NUMBERS) throw new TooLargeError();
}

/** How far apart the numbers of an array are along each of some letters; 0 along those that it has not. */
function stridesOf({ letters }, wanted, sizes) {
  const strides = {};
  let stride = 1;
  for (const letter of [...letters].reverse()) {
    strides[letter] = stride;
    stride *= sizes[letter];
  }
  return wanted.map((letter) => strides[letter] ?? 0);
}

/** Calls back with the place of each part, for each combination of some letters in order. */
function forEachPlace(letters, sizes, parts, visit) {
  const strides = parts.map((part) => stridesOf(part, letters, sizes)), places = parts.map(() => 0);
  const index = letters.map(() => 0), count = sizeOf(letters, sizes);
  for (let n = 0; n < count; n++) {
    visit(n, places);
    for (let axis = letters.length - 1; axis >= 0; axis--) {
      index[axis] += 1;
      for (let p = 0; p < parts.length; p++) places[p] += strides[p][axis];
      if (index[axis] < sizes[letters[axis]]) break;
      for (let p = 0; p < parts.length; p++) places[p] -= strides[p][axis] * index[axis];
      index[axis] = 0;
    }
  }
}

/** A function of the numbers of several parts, which are repeated along the letters that they lack. */
function elementwise(values, parts, compute) {
  const letters = unique(parts.flatMap((part) => part.letters)), given = parts.map(() => 0);
  expectSmall(letters, values.sizes);
  const data = new Float64Array(sizeOf(letters, values.sizes));
  forEachPlace(letters, values.sizes, parts, (n, places) => {
    for (let p = 0; p < parts.length; p++) given[p] = parts[p].data[places[p]];
    data[n] = compute(...given);
  });
  return { letters, data };
}

/** The array of a formula; an index on the left alone repeats the numbers. */
function valueOf(formula, values) {
  const { letters } = formula, { sizes } = values;
  expectSmall(letters, sizes);
  const found = namedValue(formula.value, values), data = new Float64Array(sizeOf(letters, sizes));
  forEachPlace(letters, sizes, [found], (n, [place]) => { data[n] = found.data[place]; });
  return { shape: letters.map((letter) => sizes[letter]), data };
}

const single = (value) => ({ letters: [], data: Float64Array.of(value) });

/** The value of a part of a formula. */
function namedValue(node, values) {
  const all = (nodes) => nodes.map((one) => namedValue(one, values));
  switch (node.kind) {
    case "number": return single(node.value);
    case "scalar": return single(values.scalars[node.name]);
    case "letter": return { letters: [node.letter], data: Float64Array.from({ length: values.sizes[node.letter] }, (_, n) => n) };
    case "entry": return valueOfEntry(node, values);
    case "condition": {
      const compare = node.signs.map((sign) => COMPARISONS[sign]);
      return elementwise(values, all(node.terms), (...terms) => (compare.every((holds, n) => holds(terms[n], terms[n + 1])) ? 1 : 0));
    }
    case "call": return elementwise(values, all(node.arguments), FUNCTIONS[node.function]);
    case "power": return elementwise(values, all([node.base, node.exponent]), (a, b) => a ** b);
    case "product": return valueOfProduct(node, [], values);
    case "total": return elementwise(values, all(node.terms), (...terms) => terms.reduce((sum, term, n) => sum + node.signs[n] * term, 0));
    default: return node.over === "sum" ? valueOfSum(node.letters, node.body, values) : valueOfMax(node.letters, node.body, values);
  }
}

/** An array by its indices; beyond its ends it is 0. */
function valueOfEntry(entry, values) {
  const { shape, data } = values.arrays[entry.name], letters = lettersOf(entry.indices);
  if (!letters.includes("") && unique(letters).length === letters.length) return { letters, data };
  const indices = entry.indices.map((one) => namedValue(one, values));
  return elementwise(values, indices, (...places) => {
    const inside = places.every((place, axis) => Number.isInteger(place) && place >= 0 && place < shape[axis]);
    return inside ? data[places.reduce((at, place, axis) => at * shape[axis] + place, 0)] : 0;
  });
}

/** A product, summed over some letters. */
function valueOfProduct(node, summed, values) {
  const parts = node.factors.map((one) => namedValue(one, values));
  for (const one of node.divisors) {
    const { letters, data } = namedValue(one, values);
    parts.push({ letters, data: data.map((x) => 1 / x) });
  }
  return contracted(parts, summed, values);
}

/** The product of some parts, summed over letters. A factor that is 0 ends a term early, as δ does. */
function contracted(parts, summed, { sizes }) {
  const letters = unique(parts.flatMap((part) => part.letters)), out = letters.filter((letter) => !summed.includes(letter));
  expectSmall(letters, sizes);
  const scale = sizeOf(summed.filter((letter) => !letters.includes(letter)), sizes);
  const data = new Float64Array(sizeOf(out, sizes));
  const share = (part) => part.data.reduce((count, x) => count + (x !== 0), 0) / part.data.length;
  const sorted = parts.map((part) => ({ part, share: share(part) })).sort((a, b) => a.share - b.share).map(({ part }) => part);
  const order = unique(sorted.flatMap((part) => part.letters)), depths = order.length;
  const isFinite = parts.every((part) => part.data.every(Number.isFinite));
  const strides = sorted.map((part) => stridesOf(part, order, sizes)), outStrides = stridesOf({ letters: out }, order, sizes);
  // The factors that are known once the letters down to a depth are.
  const known = Array.from({ length: depths + 1 }, () => []);
  sorted.forEach((part, p) => known[part.letters.reduce((most, letter) => Math.max(most, order.indexOf(letter) + 1), 0)].push(p));
  const places = sorted.map(() => 0);
  const descend = (depth, product, at) => {
    for (const p of known[depth]) product *= sorted[p].data[places[p]];
    if (product === 0 && isFinite) return;
    if (depth === depths) {
      data[at] += product;
      return;
    }
    const size = sizes[order[depth]];
    for (let n = 0; n < size; n++) {
      descend(depth + 1, product, at + n * outStrides[depth]);
      for (let p = 0; p < places.length; p++) places[p] += strides[p][depth];
    }
    for (let p = 0; p < places.length; p++) places[p] -= size * strides[p][depth];
  };
  descend(0, scale, 0);
  return { letters: out, data };
}

function valueOfSum(letters, body, values) {
  while (body.kind === "over" && body.over === "sum" && !body.letters.some((letter) => letters.includes(letter))) {
    letters = [...letters, ...body.letters];
    body = body.body;
  }
  return valueOfProduct(body.kind === "product" ? body : { factors: [body], divisors: [] }, letters, values);
}

function valueOfMax(letters, body, values) {
  const found = namedValue(body, values), rest = found.letters.filter((letter) => !letters.includes(letter));
  const kept = { letters: rest, data: new Float64Array(sizeOf(rest, values.sizes)).fill(-Infinity) };
  forEachPlace(found.letters, values.sizes, [found, kept], (_n, [from, to]) => {
    const x = found.data[from];
    if (!(x <= kept.data[to])) kept.data[to] = Math.max(x, kept.data[to]); // Also if it is no number.
  });
  return kept;
}
