"use strict";
// Opens an entry of an array as the sum that it is, in numbers.

const MOST_ROWS = 12; // Of a sum; the rest is one row.
const MOST_INNER = 6; // Terms of a sum within a term.

/** A number with at most four digits: 2, 0.125, −3.25. */
function shortNumber(x) {
  if (!Number.isFinite(x)) return String(x);
  const rounded = Number(x.toPrecision(Math.abs(x) >= 1000 ? 6 : 3));
  return String(Math.abs(rounded) < 1e-9 ? 0 : rounded).replace("-", "−");
}

/** The number of a part, where each of its letters is bound to an index. */
function numberAt(node, values, bound) {
  const at = (one) => numberAt(one, values, bound);
  switch (node.kind) {
    case "number": return node.value;
    case "scalar": return values.scalars[node.name];
    case "letter": return bound[node.letter];
    case "entry": {
      const place = flatPlace(node, values, bound);
      return place === null ? 0 : values.arrays[node.name].data[place];
    }
    case "condition": return node.signs.every((sign, n) => COMPARISONS[sign](at(node.terms[n]), at(node.terms[n + 1]))) ? 1 : 0;
    case "call": return FUNCTIONS[node.function](...node.arguments.map(at));
    case "power": return at(node.base) ** at(node.exponent);
    case "product": return node.divisors.reduce((x, one) => x / at(one), node.factors.reduce((x, one) => x * at(one), 1));
    case "total": return node.terms.reduce((x, one, n) => x + node.signs[n] * at(one), 0);
    default: {
      const all = boundBy(node.letters, values.sizes, bound).map((each) => numberAt(node.body, values, each));
      return node.over === "sum" ? all.reduce((a, b) => a + b, 0) : Math.max(...all);
    }
  }
}

/** The place of an entry in its array; null beyond its ends. */
function flatPlace({ name, indices }, values, bound) {
  const { shape } = values.arrays[name], places = indices.map((one) => numberAt(one, values, bound));
  const inside = places.every((place, axis) => Number.isInteger(place) && place >= 0 && place < shape[axis]);
  return inside ? places.reduce((at, place, axis) => at * shape[axis] + place, 0) : null;
}

/** Every combination of some letters' indices, each added to those that are bound. */
function boundBy(letters, sizes, bound) {
  return letters.reduce((all, letter) => all.flatMap((one) => Array.from({ length: sizes[letter] }, (_, n) => ({ ...one, [letter]: n }))), [bound]);
}

/** A part in numbers, such as 2 · (−1); a sum within it is one number. */
function inNumbers(node, values, bound) {
  const write = (one) => inNumbers(one, values, bound), number = (one) => shortNumber(numberAt(one, values, bound));
  const asFactor = (one) => {
    const text = one.kind === "total" || one.kind === "product" ? write(one) : ["power", "call"].includes(one.kind) ? write(one) : number(one);
    return one.kind === "total" || one.kind === "product" || text.startsWith("−") ? `(${text})` : text;
  };
  switch (node.kind) {
    case "product": return [node.factors.map(asFactor).join(" · "), ...node.divisors.map(asFactor)].join(" / ");
    case "total": return node.terms.map((one, n) => {
      const text = one.kind === "total" ? `(${write(one)})` : write(one), sign = node.signs[n] < 0 ? "−" : "+";
      const safe = text.startsWith("−") ? `(${text})` : text;
      return n ? ` ${sign} ${safe}` : sign === "−" ? `−${safe}` : text;
    }).join("");
    case "power": {
      const exponent = shortNumber(numberAt(node.exponent, values, bound));
      const raised = /^−?\d$/.test(exponent) ? exponent.replace("−", "⁻").replace(/\d/, (digit) => RAISED[digit]) : `^(${exponent})`;
      return `${asFactor(node.base).replace(/^([^(].*[^\d.].*)$/, "($1)")}${raised}`;
    }
    case "call": return node.function === "sqrt" ? `√${asFactor(node.arguments[0])}` : `${node.function}(${node.arguments.map(write).join(", ")})`;
    default: return number(node);
  }
}

/** The conditions of a term that is not within a sum hold, so that it counts. */
function counts(node, values, bound) {
  if (node.kind !== "product") return node.kind !== "condition" || numberAt(node, values, bound) !== 0;
  return node.factors.every((one) => one.kind !== "condition" || numberAt(one, values, bound) !== 0);
}

/** The places of all entries of a part, by the names of their arrays. */
function usedBy(node, values, bound, used = {}) {
  if (node.kind === "entry") {
    const place = flatPlace(node, values, bound);
    if (place !== null) (used[node.name] ??= new Set()).add(place);
  } else if (node.kind === "over") {
    for (const each of boundBy(node.letters, values.sizes, bound)) if (counts(node.body, values, each)) usedBy(node.body, values, each, used);
  } else if (counts(node, values, bound)) partsOf(node).forEach((part) => usedBy(part, values, bound, used));
  return used;
}

/** The sums within a part that has no index unbound, in numbers. */
function innerSums(node, values, bound) {
  const within = node.kind === "over" ? [] : partsOf(node).flatMap((part) => innerSums(part, values, bound));
  if (node.kind !== "over" || node.over !== "sum") return within;
  const all = boundBy(node.letters, values.sizes, bound).filter((each) => counts(node.body, values, each));
  if (all.length > MOST_INNER) return [];
  return [{ letters: node.letters, text: all.map((each) => inNumbers(node.body, values, each)).join(" + "), value: numberAt(node, values, bound) }];
}

/**
 * An entry of a formula's array, opened: {bound, inner, rows: [{where, text, value}], left, value, used}. A row is a
 * term of the sum, `inner` are the sums within a term; terms whose condition does not hold are left out.
 */
function opened(formula, values, index) {
  const bound = Object.fromEntries(formula.letters.map((letter, n) => [letter, index[n]])), rows = [], inner = [];
  const terms = formula.value.kind === "total" ? formula.value.terms : [formula.value];
  const signs = formula.value.kind === "total" ? formula.value.signs : [1];
  for (const [n, term] of terms.entries()) {
    const sum = term.kind === "product" && !term.divisors.length ? term.factors.at(-1) : term;
    const front = sum === term ? [] : term.factors.slice(0, -1);
    const one = (node, all, where) => {
      const sign = signs[n] < 0 ? "−" : "", text = inNumbers(node, values, all);
      const isOne = node.kind !== "total" || !sign;
      rows.push({ where, text: sign + (isOne && !(sign && text.startsWith("−")) ? text : `(${text})`), value: signs[n] * numberAt(node, values, all) });
    };
    if (sum.kind !== "over" || sum.over !== "sum") {
      inner.push(...innerSums(term, values, bound));
      one(term, bound, {});
      continue;
    }
    let { letters, body } = sum;
    while (body.kind === "over" && body.over === "sum") [letters, body] = [[...letters, ...body.letters], body.body];
    for (const all of boundBy(letters, values.sizes, bound)) {
      if (!counts(body, values, all)) continue;
      const parts = body.kind === "product" ? body : { kind: "product", factors: [body], divisors: [] };
      const kept = parts.factors.filter(({ kind }) => kind !== "condition");
      const whole = { ...parts, factors: [...front, ...(kept.length ? kept : [{ kind: "number", value: 1 }])] };
      const alone = whole.factors.length === 1 && !whole.divisors.length ? whole.factors[0] : whole;
      one(alone, all, Object.fromEntries(letters.map((letter) => [letter, all[letter]])));
    }
  }
  const left = rows.length > MOST_ROWS ? rows.splice(MOST_ROWS - 1) : [];
  const value = numberAt(formula.value, values, bound);
  return { bound, inner, rows, left: { count: left.length, value: left.reduce((sum, each) => sum + each.value, 0) }, value, used: usedBy(formula.value, values, bound) };
}
