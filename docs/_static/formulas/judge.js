"use strict";
// Judges a formula by the right one, and says the first thing that is wrong: the twin of
// jaxnets/course/formulas/judge.py, with its sentences. Both pass tests/formula_cases.toml.

const SEEDS = [1, 2], CLOSE = 1e-9; // Relative to the largest number; no usual mistake changes less.

/** The first thing that is wrong with a layer's formula of an array, in one line; "" if it is right. */
function firstWrong(layer, name, text) {
  let formula;
  try {
    formula = parse(text, layer.namesBefore(name));
  } catch (error) {
    if (error instanceof FormulaError) return error.message;
    throw error;
  }
  if (formula.name !== name) return _("expected a formula of {}, got one of {}", name, formula.name);
  const rank = layer.axes[name].length;
  if (formula.letters.length !== rank) return _("indices of {}: expected {}, got {}", name, rank, formula.letters.length);
  const found = sizesOf(layer, formula);
  if (typeof found === "string") return found;
  try {
    return outside(layer, formula, found) || compared(layer, formula, found);
  } catch (error) {
    if (error instanceof TooLargeError) return _("too many indices in one term");
    throw error;
  }
}

/** The size of each letter, by its name; or what is wrong with the letters. */
function sizesOf(layer, formula) {
  const counted = {}, first = {}, nodes = walk(formula.value), axes = layer.axes[formula.name];
  for (const entry of nodes.filter(({ kind }) => kind === "entry")) {
    for (const [n, letter] of lettersOf(entry.indices).entries()) {
      if (!letter) continue;
      const size = layer.axes[entry.name][n];
      counted[letter] ??= size;
      if (counted[letter] !== size) {
        return _("{} runs over {} in {}, but over {} in {}", letter, counted[letter], first[letter], size, entry.text);
      }
      first[letter] ??= entry.text;
    }
  }
  const sizes = { ...layer.letters, ...counted };
  const wanted = Object.fromEntries(formula.letters.map((letter, n) => [letter, axes[n]]));
  const wrong = formula.letters.filter((letter) => (sizes[letter] ?? wanted[letter]) !== wanted[letter]);
  const sorted = (all) => [...all].sort().join(" ");
  if (wrong.length && sorted(formula.letters.map((one) => sizes[one] ?? "")) === sorted(axes)) {
    const ours = Object.fromEntries(Object.entries(sizes).filter(([letter]) => letter in wanted).map(([letter, size]) => [size, letter]));
    return _("this is {}ᵀ: its first index is {}", formula.name, ours[axes[0]]);
  }
  for (const letter of wrong) {
    return _("{} runs over {} on the right, but over {} in {}", letter, sizes[letter], wanted[letter], formula.name);
  }
  Object.assign(sizes, wanted);
  for (const node of nodes) {
    const used = node.kind === "entry" ? lettersOf(node.indices) : node.kind === "over" ? node.letters : [];
    const unknown = used.find((letter) => letter && !has(sizes, letter));
    if (unknown) return _("{} has no size: it is the index of no array", unknown);
  }
  return sizes;
}

/** Which entry lies outside of its array, whatever its letters are. */
function outside(layer, formula, sizes) {
  const numbers = Object.fromEntries(Object.entries(sizes).map(([letter, size]) => [letter, layer.sizes[size]])), nodes = walk(formula.value);
  const counts = nodes.filter(({ kind }) => kind !== "over").map((node) => sizeOf([...freeLetters(node)], numbers));
  if (counts.reduce((a, b) => a + b, 0) > MOST_NUMBERS) throw new TooLargeError();
  const values = { ...layer.values({}, layer.sizes), sizes: numbers };
  for (const entry of nodes.filter(({ kind }) => kind === "entry")) {
    for (const [axis, index] of entry.indices.entries()) {
      const size = layer.axes[entry.name][axis], end = layer.sizes[size];
      if (!namedValue(index, values).data.some((place) => Number.isInteger(place) && place >= 0 && place < end)) {
        return _("{} is outside: this index of {} ends before {}", entry.text, entry.name, size);
      }
    }
  }
  return "";
}

function compared(layer, formula, sizes) {
  const right = layer.gradients[formula.name];
  const pairs = (numbers, ties = false) => SEEDS.map((seed) => {
    const whole = layer.whole(numbers, seed, ties);
    const ofLetters = Object.fromEntries(Object.entries(sizes).map(([letter, size]) => [letter, numbers[size]]));
    return [whole, { ...whole, sizes: ofLetters }];
  });
  const same = (numbers, ties) => pairs(numbers, ties).every(([whole, given]) => isClose(valueOf(formula, given), whole.arrays[right.name]));
  const draws = pairs(layer.sizes), given = draws.map(([, one]) => valueOf(formula, one));
  const wanted = draws.map(([whole]) => whole.arrays[right.name]);
  const allClose = (some) => some.every((one, n) => isClose(one, wanted[n]));
  if (allClose(given)) {
    const tied = Object.values(layer.kinds).includes("ties");
    if (tied && !same(layer.sizes, true)) return _("right, but not at the kink: > or ≥?");
    if (!layer.otherSizes(formula.text).every((numbers) => same(numbers))) {
      return _("right at the sizes tried first only: is there a number in place of a size?");
    }
    if (kinks(formula).some((one) => neverDecides(one, draws.map(([, values]) => values)))) {
      return _("right, but a condition, max or min never decides anything: leave it out");
    }
    return "";
  }
  if (!given.every(({ data }) => data.every(Number.isFinite))) return _("not finite: what if you divide by 0?");
  const factor = factorBetween(layer, given, wanted);
  if (factor) return factor;
  const axes = layer.axes[right.name];
  for (let i = 0; i < axes.length; i++) {
    for (let j = i + 1; j < axes.length; j++) {
      if (axes[i] !== axes[j]) continue;
      if (allClose(given.map((one) => exchanged(one, i, j)))) {
        return _("this is {}ᵀ: its first index is {}", right.name, formula.letters[j]);
      }
      if (given.every((one, n) => isClose(offDiagonal(one, i, j), offDiagonal(wanted[n], i, j)))) {
        return _("right but for δ: what if {} = {}?", formula.letters[i], formula.letters[j]);
      }
    }
  }
  const shared = new Set(multiplied(right).map((entries) => namesIfSharing(entries, true)).filter(Boolean));
  for (const entries of multiplied(formula)) {
    if (shared.has(namesIfSharing(entries, false))) {
      return _("{} and {} share no index: which one is summed?", entries[0].name, entries[1].name);
    }
  }
  for (const node of walk(formula.value).filter(({ kind }) => kind === "over")) {
    const within = freeLetters(node.body), unused = node.letters.find((letter) => !within.has(letter));
    if (unused) return _("you sum over {}, but nothing in the sum has the index {}", unused, unused);
  }
  const isGiven = (found) => given.every((one, n) => isClose(one, found[n]));
  for (const [says, changed] of neighbours(right.value, alike(layer))) {
    if ([...freeLetters(changed)].some((letter) => !right.letters.includes(letter))) continue;
    if (isGiven(draws.map(([whole]) => valueOf({ ...right, value: changed }, whole)))) return says;
  }
  for (const [says, changed] of otherArrays(layer, right)) {
    if (isGiven(draws.map(([whole]) => valueOf(right, changed(whole))))) return says;
  }
  if (same(layer.equalSizes)) return _("right for a square input only");
  const isWrong = (x, n) => !(Math.abs(x - wanted[0].data[n]) <= CLOSE * (1 + Math.abs(wanted[0].data[n])));
  const wrong = [...given[0].data].map(isWrong), at = wrong.indexOf(true);
  const place = placeOf(Math.max(at, 0), given[0].shape);
  return _("{} of {} entries are wrong, the first at {}", wrong.filter(Boolean).length, wrong.length, `[${place.join(", ")}]`);
}

/** All letters with the same size as each letter, itself among them. */
function alike({ letters }) {
  const all = Object.keys(letters);
  return Object.fromEntries(all.map((one) => [one, all.filter((other) => letters[other] === letters[one])]));
}

/** Mistakes that change what a name stands for, in all places: what each is, and how. */
function* otherArrays(layer, right) {
  const names = Object.keys(layer.namesBefore(right.name).ranks), axes = (name) => layer.axes[name].join(" ");
  for (const name of names) {
    for (const other of names) {
      if (name === other || axes(name) !== axes(other)) continue;
      const changed = (values) => ({ ...values, arrays: { ...values.arrays, [name]: values.arrays[other] } });
      yield [_("another array belongs where you write {}", other), changed];
    }
  }
  for (const name of layer.names.scalars) {
    yield [_("{} is missing in some place", name), (values) => ({ ...values, scalars: { ...values.scalars, [name]: 1 } })];
  }
}

/** Each comparison on which a formula depends. */
function kinks(formula) {
  const greater = (terms) => ({ kind: "condition", terms, signs: [">"] });
  return walk(formula.value).flatMap((node) => {
    if (node.kind === "condition") return [node];
    if (node.kind !== "call") return [];
    if (["max", "min"].includes(node.function)) return [greater(node.arguments)];
    return ["relu", "relu′"].includes(node.function) ? [greater([...node.arguments, { kind: "number", value: 0 }])] : [];
  });
}

/** Whether a condition holds everywhere or nowhere: then nothing shows whether it is right. */
function neverDecides(condition, draws) {
  return new Set(draws.flatMap((values) => [...new Set(namedValue(condition, values).data)])).size === 1;
}

function isClose(a, b) {
  let scale = 1;
  for (const x of b.data) if (Math.abs(x) > scale) scale = Math.abs(x);
  if (!Number.isFinite(scale)) return false;
  for (let n = 0; n < b.data.length; n++) if (!(Math.abs(a.data[n] - b.data[n]) <= CLOSE * scale)) return false;
  return true;
}

/** The index of a number of an array, by its place. */
function placeOf(at, shape) {
  const place = [];
  for (const size of [...shape].reverse()) {
    place.unshift(at % size);
    at = Math.floor(at / size);
  }
  return place;
}

/** An array with two axes exchanged, which are equally long. */
function exchanged({ shape, data }, i, j) {
  const at = (place) => place.reduce((sum, index, axis) => sum * shape[axis] + index, 0);
  return { shape, data: data.map((_x, n) => {
    const place = placeOf(n, shape);
    [place[i], place[j]] = [place[j], place[i]];
    return data[at(place)];
  }) };
}

/** The numbers of an array at which two indices differ. */
function offDiagonal({ shape, data }, i, j) {
  return { data: data.filter((_x, n) => {
    const place = placeOf(n, shape);
    return place[i] !== place[j];
  }) };
}

/** Each two entries that are factors of the same product. */
function multiplied(formula) {
  return walk(formula.value).filter(({ kind }) => kind === "product").flatMap(({ factors }) => {
    const entries = factors.filter(({ kind }) => kind === "entry");
    return entries.flatMap((one, n) => entries.slice(n + 1).map((other) => [one, other]));
  });
}

/** The names of two entries if they share an index, or if they share none; else "". */
function namesIfSharing([one, other], sharing) {
  const letters = lettersOf(other.indices);
  const shares = lettersOf(one.indices).some((letter) => letter && letters.includes(letter));
  return shares === sharing ? unique([one.name, other.name]).sort().join(" ") : "";
}

const nearlyEqual = (a, b) => Math.abs(a - b) <= CLOSE * Math.max(Math.abs(a), Math.abs(b));

/** Which factor is too many, or missing; "" if the numbers differ otherwise. */
function factorBetween(layer, given, wanted) {
  const dot = (a, b) => a.data.reduce((sum, x, n) => sum + x * b.data[n], 0);
  const ratio = dot(given[0], wanted[0]) / dot(wanted[0], wanted[0]);
  const scaled = wanted.map(({ data }) => ({ data: data.map((x) => ratio * x) }));
  if (!given.every((one, n) => isClose(one, scaled[n]))) return "";
  if (nearlyEqual(ratio, -1)) return _("the sign is wrong");
  for (const [name, size] of Object.entries({ 2: 2, ...layer.sizes })) {
    for (const [shown, factor] of [[name, size], [`√${name}`, Math.sqrt(size)]]) {
      if (nearlyEqual(ratio, factor)) return _("a factor of {} too large", shown);
      if (nearlyEqual(ratio * factor, 1)) {
        const isMean = shown === name && name !== "2";
        return isMean ? _("a factor of {} too small: a mean in place of a sum", shown) : _("a factor of {} too small", shown);
      }
    }
  }
  return "";
}

const FIELDS = {
  entry: ["indices"], condition: ["terms"], call: ["arguments"], power: ["base", "exponent"],
  product: ["factors", "divisors"], total: ["terms"], over: ["body"],
};

/** Usual mistakes: what each is, and the formula with it. `like` has all letters with the size of each. */
function* neighbours(node, like) {
  const one = { kind: "number", value: 1 };
  if (node.kind === "condition" && node.terms.every(({ kind }) => kind === "letter")) {
    yield [_("δ is missing: a term is there only where two indices are equal"), one];
  } else if (node.kind === "condition") yield [_("a condition is missing: where does nothing pass?"), one];
  if (node.kind === "power") yield [_("an exponent is missing"), node.base];
  if (node.kind === "total" && node.terms.length > 1) {
    for (const place of node.terms.keys()) {
      yield [_("a term is missing"), { ...node, terms: without(node.terms, place), signs: without(node.signs, place) }];
      yield [_("the sign of a term is wrong"), { ...node, signs: node.signs.map((sign, n) => (n === place ? -sign : sign)) }];
    }
  }
  if (node.kind === "total" && node.terms.length > 2) {
    for (const [n, term] of node.terms.entries()) yield [_("terms are missing"), { ...node, terms: [term], signs: [node.signs[n]] }];
  }
  if (node.kind === "product") yield* otherProducts(node);
  if (node.kind === "entry") yield* otherEntries(node, like);
  for (const field of FIELDS[node.kind] ?? []) {
    const value = node[field];
    if (!Array.isArray(value)) {
      for (const [says, part] of neighbours(value, like)) yield [says, { ...node, [field]: part }];
    } else {
      for (const [place, kept] of value.entries()) {
        for (const [says, part] of neighbours(kept, like)) yield [says, { ...node, [field]: replaced(value, place, part) }];
      }
    }
  }
}

const without = (all, place) => all.filter((_one, n) => n !== place);
const replaced = (all, place, part) => all.map((one, n) => (n === place ? part : one));

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
