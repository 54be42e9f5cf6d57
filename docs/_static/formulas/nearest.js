"use strict";
// The known name that looks most like a wrong one, by the rules of jaxnets/base/errors.py.

/** The share of two words' characters that match in order, as Python's difflib counts it. */
function likeness(a, b) {
  const matched = (from, to, low, high) => {
    let best = 0, i = from, j = low;
    for (let m = from; m < to; m++) {
      for (let n = low; n < high; n++) {
        let size = 0;
        while (m + size < to && n + size < high && a[m + size] === b[n + size]) size += 1;
        if (size > best) [best, i, j] = [size, m, n];
      }
    }
    return best && best + matched(from, i, low, j) + matched(i + best, to, j + best, high);
  };
  return a.length + b.length ? (2 * matched(0, a.length, 0, b.length)) / (a.length + b.length) : 1;
}

/** The most similar words first, at most three. */
function closeMatches(wanted, words, least) {
  const found = words.map((word) => [likeness(word, wanted), word]).filter(([alike]) => alike >= least);
  const order = ([a, one], [b, other]) => b - a || (one < other ? 1 : -1);
  return found.sort(order).slice(0, 3).map(([, word]) => word);
}

/** The known name that looks most like a value; null if none is near. */
function nearestName(value, known) {
  const lettersIn = (name) => [...name].filter((one) => /[\p{L}\p{N}]/u.test(one)).join("").toLowerCase();
  const names = new Map(known.map((name) => [lettersIn(name), name])), all = [...names.keys()], wanted = lettersIn(value);
  let near = closeMatches(wanted, all, 0.85);
  if (!near.length) near = all.filter((name) => name.length > 3 && wanted.endsWith(name));
  if (!near.length) near = all.filter((name) => wanted.length > 6 && name.endsWith(wanted));
  if (!near.length && wanted) near = closeMatches(wanted, all.filter((name) => name.startsWith(wanted[0])), 0.65);
  const sorted = (word) => [...new Set(word)].sort().join("");
  const best = near.find((name) => sorted(name) === sorted(wanted)) ?? near[0];
  return best ? names.get(best) : null;
}
