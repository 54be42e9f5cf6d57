"use strict";
// Draws a formula as MathML, which a browser needs no other program for. Each index has data-letter.

const MATHML = "http://www.w3.org/1998/Math/MathML";
const BELOW_POWER = ["total", "product", "power", "over"]; // What a power's base or a factor puts in brackets.

function math(tag, children = [], attributes = {}) {
  const made = document.createElementNS(MATHML, tag);
  made.append(...(Array.isArray(children) ? children : [children]));
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

const row = (children) => (children.length === 1 ? children[0] : math("mrow", children));
const tight = (sign) => math("mo", sign, { lspace: "0", rspace: "0" });
const bracketed = (inner) => math("mrow", [math("mo", "("), inner, math("mo", ")")]);

/** A name such as dW or x̂, a letter after the other. */
function mathOfName(name) {
  const signs = [...name], made = [];
  for (const [n, sign] of signs.entries()) {
    if (sign === HAT) continue;
    const letter = math(/\d/.test(sign) ? "mn" : "mi", sign);
    made.push(signs[n + 1] === HAT ? math("mover", [letter, math("mo", "^", { stretchy: "false" })], { accent: "true" }) : letter);
  }
  return row(made);
}

/** An index: a letter, or the number that it is where an entry is chosen. */
function mathOfLetter(letter, bound) {
  const known = has(bound, letter);
  return math(known ? "mn" : "mi", String(known ? bound[letter] : letter), { "data-letter": letter });
}

function mathOfIndices(indices, bound) {
  const drawn = indices.map((one) => mathOfNode(one, bound));
  const apart = indices.some(({ kind }) => !["letter", "number"].includes(kind)) || indices.some(({ letter }) => bound[letter] > 9);
  return row(drawn.flatMap((one, n) => (apart && n ? [tight(","), one] : [one])));
}

function mathOfEntry({ name, indices }, bound) {
  return indices.length ? math("msub", [mathOfName(name), mathOfIndices(indices, bound)]) : mathOfName(name);
}

/** A part of a formula; `bound` has the numbers of the letters of a chosen entry. */
function mathOfNode(node, bound = {}) {
  const draw = (one) => mathOfNode(one, bound);
  const inBrackets = (one, kinds) => (kinds.includes(one.kind) ? bracketed(draw(one)) : draw(one));
  switch (node.kind) {
    case "number": return math("mn", String(node.value));
    case "scalar": return mathOfName(node.name);
    case "letter": return mathOfLetter(node.letter, bound);
    case "entry": return mathOfEntry(node, bound);
    case "condition": {
      const isDelta = node.terms.length === 2 && node.signs[0] === "=" && node.terms.every(({ kind }) => kind === "letter");
      if (isDelta) return math("msub", [math("mi", "δ"), mathOfIndices(node.terms, bound)]);
      const compared = node.terms.flatMap((one, n) => (n ? [math("mo", node.signs[n - 1]), draw(one)] : [draw(one)]));
      return math("mrow", [math("mo", "["), ...compared, math("mo", "]")]);
    }
    case "call": {
      const drawn = node.arguments.map(draw);
      if (node.function === "sqrt") return math("msqrt", drawn);
      if (node.function === "exp") return math("msup", [math("mi", "e"), drawn[0]]);
      const name = node.function.replace("′", ""), slope = node.function.endsWith("′");
      const head = slope ? math("msup", [math("mi", name), math("mo", "′")]) : math("mi", name);
      return math("mrow", [head, bracketed(row(drawn.flatMap((one, n) => (n ? [math("mo", ","), one] : [one]))))]);
    }
    case "power": return math("msup", [inBrackets(node.base, BELOW_POWER), draw(node.exponent)]);
    case "product": return mathOfProduct(node, bound);
    case "total": return row(node.terms.flatMap((term, n) => {
      const drawn = inBrackets(term, ["total"]), minus = node.signs[n] < 0;
      if (n) return [math("mo", minus ? "−" : "+"), drawn];
      return minus ? [math("mo", "−", { form: "prefix" }), drawn] : [drawn];
    }));
    default: {
      const letters = row(node.letters.map((letter) => mathOfLetter(letter, bound)));
      const sign = node.over === "sum" ? math("mo", "∑", { movablelimits: "false" }) : math("mo", "max", { movablelimits: "false" });
      return math("mrow", [math("munder", [sign, letters]), inBrackets(node.body, ["total"])]);
    }
  }
}

function mathOfProduct({ factors, divisors }, bound) {
  const last = factors.at(-1);
  if (divisors.length && last.kind === "over" && factors.length > 1) { // 1/K Σ_k …
    const front = mathOfProduct({ factors: factors.slice(0, -1), divisors }, bound);
    return math("mrow", [front, mathOfNode(last, bound)]);
  }
  const side = (parts) => row(parts.flatMap((one, n) => {
    const alone = parts.length === 1, drawn = mathOfNode(one, bound);
    const brackets = one.kind === "total" ? !alone || !divisors.length : one.kind === "over" && n < parts.length - 1;
    const made = brackets || (one.kind === "product" && !alone && one.divisors.length === 0) ? bracketed(drawn) : drawn;
    if (!n) return [made];
    return [one.kind === "number" ? math("mo", "·") : math("mspace", [], { width: "0.17em" }), made];
  }));
  return divisors.length ? math("mfrac", [side(factors), side(divisors)]) : side(factors);
}

/** A whole formula; with `bound` that of the chosen entry. */
function mathOf(formula, bound = {}) {
  const left = formula.letters.map((letter) => ({ kind: "letter", letter }));
  const all = [mathOfEntry({ name: formula.name, indices: left }, bound), math("mo", "="), mathOfNode(formula.value, bound)];
  return math("math", [math("mrow", all)], { display: "block" });
}

/** A text that is no formula yet, word by word: names with their subscripts. */
function mathOfText(text) {
  let tokens;
  try {
    tokens = tokensOf(text);
  } catch {
    return math("math", [math("mtext", text)], { display: "block" });
  }
  const drawn = [];
  for (let n = 0; tokens[n].kind !== "end"; n++) {
    const { kind, text: word } = tokens[n], subscripted = isSign(tokens[n + 1], "_") || (kind === "name" && isSign(tokens[n + 1], "["));
    let made = kind === "name" ? mathOfName(word) : kind === "number" ? math("mn", word) : math("mo", word);
    if (kind === "raised") made = math("mn", text.slice(tokens[n].at, tokens[n].end));
    if ((kind === "name" || word === "Σ") && subscripted) {
      const until = { "{": "}", "[": "]" };
      n += 1;
      if (isSign(tokens[n], "_") && isSign(tokens[n + 1], "{")) n += 1;
      const closing = until[tokens[n].text], letters = [];
      while (tokens[n + 1].kind !== "end" && !(closing && isSign(tokens[n + 1], closing))) {
        if (!closing && letters.length) break;
        n += 1;
        if (tokens[n].kind === "name") letters.push(...[...tokens[n].text].map((one) => mathOfLetter(one, {})));
        else letters.push(tight(tokens[n].text));
      }
      if (closing && tokens[n + 1].kind !== "end") n += 1;
      made = math(word === "Σ" ? "munder" : "msub", [made, row(letters.length ? letters : [math("mspace")])]);
    }
    drawn.push(made);
  }
  return math("math", [math("mrow", drawn)], { display: "block" });
}
