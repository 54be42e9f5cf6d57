"use strict";
// Writes a formula as one line of NumPy: the twin of jaxnets/course/formulas/numpy_code.py.

class NoLineError extends Error {}

const LATIN = { ...Object.fromEntries(Object.entries(GREEK).map(([name, greek]) => [greek, name])), "ε": "eps" };
const CALLS = {
  exp: (x) => `np.exp(${x})`, log: (x) => `np.log(${x})`, sqrt: (x) => `np.sqrt(${x})`, tanh: (x) => `np.tanh(${x})`,
  max: (a, b) => `np.maximum(${a}, ${b})`, min: (a, b) => `np.minimum(${a}, ${b})`, relu: (x) => `np.maximum(${x}, 0)`,
  "σ": (x) => `1 / (1 + np.exp(-${x}))`,
};
const SLOPES = {
  "σ′": (x) => `np.exp(-${x}) / (1 + np.exp(-${x})) ** 2`, "tanh′": (x) => `1 - np.tanh(${x}) ** 2`, "relu′": (x) => `1.0 * (${x} > 0)`,
};
const COMPARED = { ">": ">", "≥": ">=", "<": "<", "≤": "<=", "=": "==", "≠": "!=" };
// How strongly a text holds together: a sum, a product, a power or a sign, a name or a call.
const SUM = 0, PRODUCT = 1, POWER = 2, ATOM = 3;

/** A name of a formula as one of Python: dγ is dgamma, x̂ is xhat. */
function pythonName(name) {
  return [...name.normalize("NFD").replace(HAT, "hat")].map((sign) => (has(LATIN, sign) ? LATIN[sign] : sign)).join("");
}

/**
 * The formula of a layer as a line, by the names of its letters' sizes; "" where a shifted index needs more
 * than a line. With `asEinsum` its products of matrices name their indices.
 */
function numpyLine(formula, sizes, layer, asEinsum = false) {
  try {
    const writer = new NumpyWriter(sizes, layer, asEinsum);
    return `${pythonName(formula.name)} = ${writer.spread(writer.code(formula.value, formula.letters), formula.letters)}`;
  } catch (error) {
    if (error instanceof NoLineError) return "";
    throw error;
  }
}

/** Its text, in brackets where it holds together less strongly. */
const within = ({ text, holds }, wanted) => (holds >= wanted ? text : `(${text})`);

class NumpyWriter {
  constructor(sizes, layer, asEinsum) { Object.assign(this, { sizes, layer, asEinsum }); }

  /** An expression {text, letters, holds}, if possible with its axes in the order of the wanted letters. */
  code(node, wanted = []) {
    switch (node.kind) {
      case "number": return { text: String(node.value), letters: [], holds: ATOM };
      case "scalar": return { text: pythonName(node.name), letters: [], holds: ATOM };
      case "letter": return { text: `np.arange(${this.size(node.letter)})`, letters: [node.letter], holds: ATOM };
      case "entry": return this.entry(node);
      case "condition": return this.condition(node, wanted);
      case "call": return this.call(node, wanted);
      case "power": {
        const [letters, [base, exponent]] = this.together([node.base, node.exponent], wanted, [POWER + 1, POWER]);
        return { text: `${base} ** ${exponent}`, letters, holds: POWER };
      }
      case "total": return this.total(node, wanted);
      case "product": return this.product(node, wanted);
      default: return node.over === "sum" ? this.sum(node.letters, node.body, wanted) : this.reduced(this.code(node.body), "max", node.letters);
    }
  }

  size(letter) {
    if (!has(this.sizes, letter)) throw new NoLineError();
    return pythonName(this.sizes[letter]);
  }

  entry(node) {
    let text = pythonName(node.name), letters = lettersOf(node.indices);
    if (letters.includes("")) [text, letters] = this.windows(node);
    const out = unique(letters);
    if (out.length < letters.length) text = `np.einsum("${letters.join("")}->${out.join("")}", ${text})`;
    return { text, letters: out, holds: ATOM };
  }

  /** X's windows for all X_b,i+p: one at each place i, of as many entries as p has values. */
  windows({ name, indices }) {
    const places = [], windows = [], shifted = [], { axes, sizes } = this.layer;
    indices.forEach((index, axis) => {
      if (index.kind === "letter") return places.push(index.letter);
      const isShift = index.kind === "total" && index.signs.join() === "1,1" && index.terms.every(({ kind }) => kind === "letter");
      if (!isShift) throw new NoLineError();
      const [place, letter] = index.terms.map((one) => one.letter), count = (one) => sizes[this.sizes[one]];
      if (count(place) + count(letter) - 1 !== sizes[axes[name][axis]]) throw new NoLineError();
      places.push(place), windows.push(letter), shifted.push(axis);
    });
    const tuple = (texts) => (texts.length > 1 ? `(${texts.join(", ")})` : texts.join());
    const widths = tuple(windows.map((letter) => this.size(letter)));
    return [`np.lib.stride_tricks.sliding_window_view(${pythonName(name)}, ${widths}, ${tuple(shifted)})`, [...places, ...windows]];
  }

  condition({ terms, signs }, wanted) {
    const pair = terms.filter(({ kind }) => kind === "letter").map(({ letter }) => letter);
    if (signs.join() === "=" && pair.length === 2 && this.size(pair[0]) === this.size(pair[1])) {
      return { text: `np.eye(${this.size(pair[0])})`, letters: pair, holds: ATOM };
    }
    const [letters, texts] = this.together(terms, wanted, terms.map(() => SUM));
    const all = signs.map((sign, n) => `${texts[n]} ${COMPARED[sign]} ${texts[n + 1]}`);
    const text = all.length === 1 ? all[0] : all.map((one) => `(${one})`).join(" & ");
    return { text: `1.0 * (${text})`, letters, holds: PRODUCT };
  }

  call({ function: name, arguments: given }, wanted) {
    if (has(SLOPES, name)) {
      const argument = this.code(given[0], wanted);
      return { text: SLOPES[name](within(argument, ATOM)), letters: argument.letters, holds: name === "tanh′" ? SUM : PRODUCT };
    }
    if (!has(CALLS, name)) throw new NoLineError();
    const [letters, texts] = this.together(given, wanted, given.map(() => (name === "σ" ? ATOM : SUM)));
    return { text: CALLS[name](...texts), letters, holds: name === "σ" ? PRODUCT : ATOM };
  }

  total({ terms, signs }, wanted) {
    const [letters, texts] = this.together(terms, wanted, signs.map((sign) => (sign < 0 ? PRODUCT : SUM)));
    const parts = texts.map((text, n) => (n ? ` ${signs[n] < 0 ? "-" : "+"} ${text}` : `${signs[n] < 0 ? "-" : ""}${text}`));
    return { text: parts.join(""), letters, holds: SUM };
  }

  product({ factors, divisors }, wanted) {
    const all = [...factors, ...divisors], [letters, texts] = this.together(all, wanted, all.map((_one, n) => (n ? POWER : PRODUCT)));
    const text = [texts.slice(0, factors.length).join(" * "), ...texts.slice(factors.length)].join(" / ");
    return { text, letters, holds: PRODUCT };
  }

  /** A sum over letters: a product of matrices, a sum over axes, or an einsum. */
  sum(summed, body, wanted) {
    while (body.kind === "over" && body.over === "sum") [summed, body] = [[...summed, ...body.letters], body.body];
    const { factors, divisors } = body.kind === "product" ? body : { factors: [body], divisors: [] };
    const parts = factors.map((one) => this.code(one)), below = divisors.map((one) => this.code(one));
    const isArray = ({ letters }) => letters.length > 0, isNumber = (one) => !isArray(one);
    const inverse = (one) => ({ text: `1 / ${within(one, POWER)}`, letters: one.letters, holds: PRODUCT });
    const arrays = [...parts.filter(isArray), ...below.filter(isArray).map(inverse)];
    const inside = unique(arrays.flatMap(({ letters }) => letters));
    const repeated = summed.filter((letter) => !inside.includes(letter)).map((letter) => ({ text: this.size(letter), holds: ATOM }));
    const numbers = [...parts.filter(isNumber), ...repeated], under = below.filter(isNumber);
    const found = this.contracted(arrays, summed.filter((letter) => inside.includes(letter)), wanted);
    const times = [...numbers.map((one) => within(one, POWER)), ...(found ? [within(found, PRODUCT)] : [])].join(" * ");
    const text = [times, ...under.map((one) => within(one, POWER))].join(" / ");
    return { text, letters: found?.letters ?? [], holds: found && !numbers.length && !under.length ? found.holds : PRODUCT };
  }

  contracted(arrays, summed, wanted) {
    if (!arrays.length) return null;
    if (arrays.length === 1) return this.reduced(arrays[0], "sum", summed);
    const rest = unique(arrays.flatMap(({ letters }) => letters)).filter((letter) => !summed.includes(letter));
    const out = inOrder(rest, wanted);
    if (arrays.length === 2 && summed.length === 1 && out.length === 2 && !this.asEinsum) {
      const [letter] = summed, hasBoth = (one, a, b) => one.letters.length === 2 && one.letters.includes(a) && one.letters.includes(b);
      for (const [left, right] of [arrays, [arrays[1], arrays[0]]]) {
        if (hasBoth(left, out[0], letter) && hasBoth(right, letter, out[1])) {
          return { text: `${this.turned(left, [out[0], letter])} @ ${this.turned(right, [letter, out[1]])}`, letters: out, holds: PRODUCT };
        }
      }
    }
    const subscripts = `${arrays.map(({ letters }) => letters.join("")).join(",")}->${out.join("")}`;
    return { text: `np.einsum("${subscripts}", ${arrays.map(({ text }) => text).join(", ")})`, letters: out, holds: ATOM };
  }

  /** The sum or maximum over some of an array's axes. */
  reduced(code, how, over) {
    const axes = code.letters.flatMap((letter, place) => (over.includes(letter) ? [place] : []));
    const rest = code.letters.filter((letter) => !over.includes(letter));
    if (!axes.length) return code;
    const axis = !rest.length ? "" : `axis=${axes.length === 1 ? axes[0] : `(${axes.join(", ")})`}`;
    return { text: `${within(code, ATOM)}.${how}(${axis})`, letters: rest, holds: ATOM };
  }

  /** The letters of several parts, and each part's text with these axes. */
  together(nodes, wanted, holds) {
    const parts = nodes.map((one) => this.code(one, wanted)), letters = inOrder(unique(parts.flatMap((one) => one.letters)), wanted);
    return [letters, parts.map((one, n) => this.spread(one, letters, holds[n]))];
  }

  /** An array's text with axes in this order, of size 1 where it has none. */
  spread(code, letters, holds = SUM) {
    const order = letters.filter((letter) => code.letters.includes(letter));
    if (!order.length) return within(code, holds);
    const behind = letters.slice(letters.indexOf(order[0]));
    if (behind.join("") === code.letters.join("")) return within(code, holds);
    const text = this.turned(code, order);
    if (behind.length === order.length) return text;
    return `${text}[${behind.map((letter) => (order.includes(letter) ? ":" : "None")).join(", ")}]`;
  }

  /** An array's text with its axes in another order. */
  turned(code, order) {
    if (code.letters.join("") === order.join("")) return within(code, ATOM);
    if (order.length === 2) return `${within(code, ATOM)}.T`;
    return `${within(code, ATOM)}.transpose(${order.map((letter) => code.letters.indexOf(letter)).join(", ")})`;
  }
}

/** Some letters, first those that are wanted, in their order. */
function inOrder(letters, wanted) {
  return [...wanted.filter((letter) => letters.includes(letter)), ...letters.filter((letter) => !wanted.includes(letter))];
}
