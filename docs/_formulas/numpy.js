"use strict";
// Writes a formula as a line of NumPy; null for one with shifted indices, which needs slices.

class NotWritten extends Error {}

const SPELLED = Object.fromEntries(["alpha", "beta", "gamma", "epsilon", "mu", "eta", "lambda", "sigma"].map((name) => [GREEK[name], name]));
const NUMPY_FUNCTIONS = {
  exp: (x) => `np.exp(${x})`, log: (x) => `np.log(${x})`, sqrt: (x) => `np.sqrt(${x})`, tanh: (x) => `np.tanh(${x})`,
  max: (a, b) => `np.maximum(${a}, ${b})`, min: (a, b) => `np.minimum(${a}, ${b})`, relu: (x) => `np.maximum(${x}, 0)`,
  "relu′": (x) => `np.where(${x} > 0, 1, 0)`, "tanh′": (x) => `(1 - np.tanh(${x}) ** 2)`, "σ": (x) => `(1 / (1 + np.exp(-(${x}))))`,
};
const SUM_LEVEL = 1, PRODUCT_LEVEL = 2, UNARY_LEVEL = 3, ATOM_LEVEL = 4; // How strongly a line's parts bind.

/** A name as Python has it: dγ is dgamma, x̂ is xhat. */
function pythonName(name) {
  return [...name.replace(HAT, "hat")].map((sign) => SPELLED[sign] ?? sign).join("");
}

/** The line, such as dW = X.T @ dZ; with `asEinsum` its products name their indices. */
function numpyLine(layer, formula, asEinsum = false) {
  try {
    const found = new NumpyWriter(layer, asEinsum).written(formula.value, formula.letters);
    let code = found.letters.length === formula.letters.length ? placed(found, formula.letters, SUM_LEVEL) : null;
    if (code === null) {
      const shape = formula.letters.map((letter) => layer.letters[letter] ?? letter).join(", ");
      code = `np.broadcast_to(${placed(found, formula.letters, SUM_LEVEL)}, (${shape}${formula.letters.length === 1 ? "," : ""}))`;
    }
    return `${pythonName(formula.name)} = ${code}`;
  } catch (error) {
    if (error instanceof NotWritten) return null;
    throw error;
  }
}

const atLeast = ({ code, level }, wanted) => (level < wanted ? `(${code})` : code);

/** The code of an array whose axes get the order of some letters, with None for those that it lacks. */
function placed(part, letters, level) {
  if (!part.letters.length) return atLeast(part, level);
  const order = letters.filter((letter) => part.letters.includes(letter));
  if (order.length < part.letters.length) throw new NotWritten();
  let found = part;
  if (order.join("") !== part.letters.join("")) {
    const code = order.length === 2 ? `${atLeast(part, ATOM_LEVEL)}.T` : `np.einsum("${part.letters.join("")}->${order.join("")}", ${part.code})`;
    found = { code, letters: order, level: ATOM_LEVEL };
  }
  const axes = letters.map((letter) => (order.includes(letter) ? ":" : "None"));
  while (axes[0] === "None") axes.shift();
  return axes.includes("None") ? `${atLeast(found, ATOM_LEVEL)}[${axes.join(", ")}]` : atLeast(found, level);
}

class NumpyWriter {
  constructor(layer, asEinsum) { Object.assign(this, { layer, asEinsum }); }

  /** The code of a part, {code, letters, level}; a sum's axes are in the order of `wanted` if it can be. */
  written(node, wanted = []) {
    switch (node.kind) {
      case "number": return { code: String(node.value), letters: [], level: ATOM_LEVEL };
      case "scalar": return { code: pythonName(node.name), letters: [], level: ATOM_LEVEL };
      case "entry": {
        const letters = lettersOf(node.indices);
        if (letters.includes("") || unique(letters).length < letters.length) throw new NotWritten();
        return { code: pythonName(node.name), letters, level: ATOM_LEVEL };
      }
      case "condition": return this.condition(node);
      case "call": {
        const write = NUMPY_FUNCTIONS[node.function];
        if (!write) throw new NotWritten();
        return this.together(node.arguments, (parts) => ({ code: write(...parts), level: ATOM_LEVEL }), SUM_LEVEL);
      }
      case "power": {
        const level = UNARY_LEVEL, write = ([base, exponent]) => ({ code: `${base} ** ${exponent}`, level });
        return this.together([node.base, node.exponent], write, ATOM_LEVEL);
      }
      case "product": return this.product(node, [], wanted);
      case "total": {
        const write = (parts) => ({
          code: parts.map((part, n) => (n ? ` ${node.signs[n] < 0 ? "-" : "+"} ${part}` : `${node.signs[n] < 0 ? "-" : ""}${part}`)).join(""),
          level: SUM_LEVEL,
        });
        return this.together(node.terms, write, PRODUCT_LEVEL, wanted);
      }
      case "over": return this.over(node, wanted);
      default: throw new NotWritten();
    }
  }

  /** Parts that are written with the same axes. */
  together(nodes, write, level, wanted = []) {
    const parts = nodes.map((one) => this.written(one, wanted)), all = unique(parts.flatMap((part) => part.letters));
    const letters = [...wanted.filter((letter) => all.includes(letter)), ...all.filter((letter) => !wanted.includes(letter))];
    return { ...write(parts.map((part) => placed(part, letters, level))), letters };
  }

  condition({ terms, signs }) {
    const isDelta = terms.length === 2 && signs[0] === "=" && terms.every(({ kind }) => kind === "letter");
    if (isDelta) {
      const [i, j] = terms.map(({ letter }) => letter), sizes = [i, j].map((letter) => this.layer.letters[letter]);
      if (sizes[0] !== sizes[1] || !sizes[0]) throw new NotWritten();
      return { code: `np.eye(${sizes[0]})`, letters: [i, j], level: ATOM_LEVEL };
    }
    const hasLetter = (one) => one.kind !== "entry" && (one.kind === "letter" || partsOf(one).some(hasLetter)); // As a number.
    if (terms.length !== 2 || terms.some(hasLetter)) throw new NotWritten();
    const sign = { "≥": ">=", "≤": "<=", "=": "==", "≠": "!=" }[signs[0]] ?? signs[0];
    return this.together(terms, ([a, b]) => ({ code: `(${a} ${sign} ${b})`, level: ATOM_LEVEL }), PRODUCT_LEVEL);
  }

  product({ factors, divisors }, summed, wanted) {
    if (!summed.length) {
      const nodes = [...factors, ...divisors], write = (parts) => {
        const over = parts.slice(0, factors.length), under = parts.slice(factors.length);
        return { code: [over.join(" * "), ...under].join(" / "), level: PRODUCT_LEVEL };
      };
      return this.together(nodes, write, UNARY_LEVEL, wanted);
    }
    const parts = factors.map((one) => this.written(one)), arrays = parts.filter(({ letters }) => letters.length);
    const under = divisors.map((one) => this.written(one));
    if (under.some(({ letters }) => letters.length)) throw new NotWritten();
    const found = this.sumOf(arrays, summed, wanted);
    const scalars = parts.filter(({ letters }) => !letters.length).map((part) => atLeast(part, UNARY_LEVEL));
    if (!scalars.length && !under.length) return found;
    const code = [[...scalars, atLeast(found, UNARY_LEVEL)].join(" * "), ...under.map((part) => atLeast(part, UNARY_LEVEL))].join(" / ");
    return { code, letters: found.letters, level: PRODUCT_LEVEL };
  }

  /** The product of arrays, summed over letters. */
  sumOf(arrays, summed, wanted) {
    const all = unique(arrays.flatMap(({ letters }) => letters)), out = all.filter((letter) => !summed.includes(letter));
    if (!arrays.length || summed.some((letter) => !all.includes(letter))) throw new NotWritten();
    const inOrder = [...wanted.filter((letter) => out.includes(letter)), ...out.filter((letter) => !wanted.includes(letter))];
    if (arrays.length === 1) {
      const [{ letters }] = arrays, axes = summed.map((letter) => letters.indexOf(letter)).sort();
      const shown = axes.length === 1 ? axes[0] : `(${axes.join(", ")})`;
      return { code: `${atLeast(arrays[0], ATOM_LEVEL)}.sum(axis=${shown})`, letters: out, level: ATOM_LEVEL };
    }
    const matrices = arrays.length === 2 && summed.length === 1 && out.length === 2 && arrays.every(({ letters }) => letters.length === 2);
    if (matrices && !this.asEinsum) {
      const [left, right] = arrays[0].letters.includes(inOrder[0]) ? arrays : [arrays[1], arrays[0]];
      const a = left.letters[1] === summed[0] ? atLeast(left, ATOM_LEVEL) : `${atLeast(left, ATOM_LEVEL)}.T`;
      const b = right.letters[0] === summed[0] ? atLeast(right, ATOM_LEVEL) : `${atLeast(right, ATOM_LEVEL)}.T`;
      return { code: `${a} @ ${b}`, letters: inOrder, level: PRODUCT_LEVEL };
    }
    const letters = `"${arrays.map((part) => part.letters.join("")).join(",")}->${inOrder.join("")}"`;
    return { code: `np.einsum(${letters}, ${arrays.map(({ code }) => code).join(", ")})`, letters: inOrder, level: ATOM_LEVEL };
  }

  over({ over, letters, body }, wanted) {
    if (over === "max") {
      const inner = this.written(body), axes = letters.map((letter) => inner.letters.indexOf(letter));
      if (axes.includes(-1)) throw new NotWritten();
      const shown = axes.length === 1 ? axes[0] : `(${axes.join(", ")})`;
      const rest = inner.letters.filter((letter) => !letters.includes(letter));
      return { code: `${atLeast(inner, ATOM_LEVEL)}.max(axis=${shown})`, letters: rest, level: ATOM_LEVEL };
    }
    while (body.kind === "over" && body.over === "sum" && !body.letters.some((letter) => letters.includes(letter))) {
      letters = [...letters, ...body.letters];
      body = body.body;
    }
    return this.product(body.kind === "product" ? body : { factors: [body], divisors: [] }, letters, wanted);
  }
}
