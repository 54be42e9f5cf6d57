"use strict";
// Judges a formula by the right one, and says the first thing that is wrong: the twin of
// jaxnets/course/formulas/judge.py, with its sentences. Both pass tests/formula_cases.toml.

const MOST_SHOWN = 30; // Characters of an entry.
const CLOSE = 1e-9; // Relative to the largest number; no usual mistake changes less.

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
        const shown = shortened(entry.text, MOST_SHOWN);
        return _("{} is outside: this index of {} ends before {}", shown, entry.name, size);
      }
    }
  }
  return "";
}

function compared(layer, formula, sizes) {
  const right = layer.gradients[formula.name];
  const pairs = (numbers, ties = false) => Array.from({ length: layer.seeds }, (_one, n) => n + 1).map((seed) => {
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
    const values = draws.map(([, one]) => one);
    if (kinks(formula).some((one) => neverDecides(one, values))) {
      return _("right, but a condition, max or min never decides anything: leave it out");
    }
    for (const less of withoutAPart(formula)) {
      if (isClose(valueOf(less, values[0]), wanted[0])) return _("right, but a term or a number in it changes nothing: leave it out");
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
  for (const { says, value } of mistakes(layer, right)) {
    if (given.every((one, n) => isClose(one, value(draws[n][0])))) return says;
  }
  if (same(layer.equalSizes)) return _("right for a square input only");
  if (!axes.length) return _("this number is wrong");
  const isWrong = (x, n) => !(Math.abs(x - wanted[0].data[n]) <= CLOSE * (1 + Math.abs(wanted[0].data[n])));
  const wrong = [...given[0].data].map(isWrong), at = wrong.indexOf(true);
  const place = placeOf(Math.max(at, 0), given[0].shape);
  return _("{} of {} entries are wrong, the first at {}", wrong.filter(Boolean).length, wrong.length, `[${place.join(", ")}]`);
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
  const dot = (all, others) => all.reduce((total, { data }, n) => data.reduce((sum, x, at) => sum + x * others[n].data[at], total), 0);
  const ratio = dot(given, wanted) / dot(wanted, wanted);
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
