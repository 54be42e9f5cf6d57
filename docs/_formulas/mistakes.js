"use strict";
// The usual mistakes in a formula: what each is called, and the formula with it. The twin of
// jaxnets/course/formulas/mistakes.py.

const FIELDS = {
  entry: ["indices"], condition: ["terms"], call: ["arguments"], power: ["base", "exponent"],
  product: ["factors", "divisors"], total: ["terms"], over: ["body"],
};

const without = (all, place) => all.filter((_one, n) => n !== place);
const replaced = (all, place, part) => all.map((one, n) => (n === place ? part : one));

/** The usual mistakes in a layer's formula, the likelier first: {says, value: a function of the values}. */
function* mistakes(layer, right) {
  const { letters } = layer, all = Object.keys(letters);
  const like = Object.fromEntries(all.map((one) => [one, all.filter((other) => letters[other] === letters[one])]));
  for (const [says, value] of changed(right.value, (node) => mistaken(node, like))) {
    if ([...freeLetters(value)].every((letter) => right.letters.includes(letter))) {
      yield { says, value: (values) => valueOf({ ...right, value }, values) };
    }
  }
  const names = Object.keys(layer.namesBefore(right.name).ranks), axes = (name) => layer.axes[name].join(" ");
  for (const name of names) {
    for (const other of names) {
      if (name === other || axes(name) !== axes(other)) continue;
      const exchanged = (values) => ({ ...values, arrays: { ...values.arrays, [name]: values.arrays[other] } });
      yield { says: _("another array belongs where you write {}", other), value: (values) => valueOf(right, exchanged(values)) };
    }
  }
  for (const name of layer.names.scalars) {
    const lacking = (values) => ({ ...values, scalars: { ...values.scalars, [name]: 1 } });
    yield { says: _("{} is missing in some place", name), value: (values) => valueOf(right, lacking(values)) };
  }
}

/** A formula without one of its terms, and without one of its numbers that is not 1. */
function* withoutAPart(formula) {
  const less = function* less(node) {
    if (node.kind === "total" && node.terms.length > 1) {
      for (const [place, term] of node.terms.entries()) { // But for a scalar such as ε.
        if (term.kind !== "scalar") yield ["", { ...node, terms: without(node.terms, place), signs: without(node.signs, place) }];
      }
    }
    if (node.kind === "product" && node.factors.length > 1) {
      for (const [place, factor] of node.factors.entries()) {
        if (factor.kind === "number" && factor.value !== 1) yield ["", { ...node, factors: without(node.factors, place) }];
      }
    }
  };
  for (const [, value] of changed(formula.value, less)) yield { ...formula, value };
}

/** What a part becomes if it, or one part within it, is changed. */
function* changed(node, change) {
  yield* change(node);
  for (const field of FIELDS[node.kind] ?? []) {
    const value = node[field];
    if (!Array.isArray(value)) {
      for (const [says, part] of changed(value, change)) yield [says, { ...node, [field]: part }];
    } else {
      for (const [place, one] of value.entries()) {
        for (const [says, part] of changed(one, change)) yield [says, { ...node, [field]: replaced(value, place, part) }];
      }
    }
  }
}

/** The mistakes in one part; `like` has the letters with the same size as each. */
function* mistaken(node, like) {
  const one = { kind: "number", value: 1 };
  if (node.kind === "condition" && node.terms.every(({ kind }) => kind === "letter")) {
    yield [_("δ is missing: a term is there only where two indices are equal"), one];
  } else if (node.kind === "condition") yield [_("a condition is missing: where does nothing pass?"), one];
  if (node.kind === "power") yield [_("an exponent is missing"), node.base];
  if (node.kind === "total") yield* otherTotals(node);
  if (node.kind === "product") yield* otherProducts(node);
  if (node.kind === "entry") yield* otherEntries(node, like);
}

function* otherTotals(node) {
  const { terms, signs } = node;
  for (const place of terms.length > 1 ? terms.keys() : []) {
    yield [_("a term is missing"), { ...node, terms: without(terms, place), signs: without(signs, place) }];
    yield [_("the sign of a term is wrong"), { ...node, signs: replaced(signs, place, -signs[place]) }];
  }
  for (const [n, term] of terms.length > 2 ? terms.entries() : []) yield [_("terms are missing"), { ...node, terms: [term], signs: [signs[n]] }];
}

/** An entry with two indices exchanged, with one that is shifted the other way, or with another letter. */
function* otherEntries(node, like) {
  const { name, indices } = node, letters = lettersOf(indices), likes = (letter) => like[letter] ?? [];
  for (let i = 0; i < indices.length; i++) {
    for (let j = i + 1; j < indices.length; j++) {
      if (!likes(letters[i]).includes(letters[j])) continue;
      const swapped = replaced(replaced(indices, i, indices[j]), j, indices[i]);
      yield [_("two indices of {} are exchanged", name), { ...node, indices: swapped }];
    }
  }
  const isShifted = (index) => index.kind === "total" && index.terms.length > 1;
  const turned = (index) => ({ ...index, signs: index.signs.map((sign, n) => (n ? -sign : sign)) });
  if (indices.some(isShifted)) {
    const other = indices.map((index) => (isShifted(index) ? turned(index) : index));
    yield [_("an index of {} is shifted the wrong way", name), { ...node, indices: other }];
  }
  for (const [place, letter] of letters.entries()) {
    for (const other of likes(letter).filter((one) => one !== letter)) {
      yield [_("an index of {} is the wrong letter", name), { ...node, indices: replaced(indices, place, { kind: "letter", letter: other }) }];
    }
  }
}

/** A product without one of its factors or divisors, and with one on the other side. */
function* otherProducts(node) {
  const { factors, divisors } = node;
  for (const [place, one] of factors.entries()) {
    if (one.kind === "condition") continue;
    const left = factors.length > 1 ? without(factors, place) : [{ kind: "number", value: 1 }];
    yield [one.kind === "entry" ? _("a factor is missing: {}", one.name) : _("a factor is missing"), { ...node, factors: left }];
    yield [_("you divide where a factor belongs"), { ...node, factors: left, divisors: [...divisors, one] }];
  }
  for (const [place, one] of divisors.entries()) {
    const left = without(divisors, place);
    yield [_("a divisor is missing"), { ...node, divisors: left }];
    yield [_("you multiply where a divisor belongs"), { ...node, factors: [...factors, one], divisors: left }];
  }
}
