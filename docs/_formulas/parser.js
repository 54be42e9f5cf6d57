"use strict";
// Reads a formula in index notation: the twin of jaxnets/course/formulas/parser.py, with its sentences.
//
// A formula is {name, letters, value, text}; a part of it has a `kind` and, by its kind:
//   number {value}, scalar {name}, letter {letter}, entry {name, indices, text},
//   condition {terms, signs}, call {function, arguments}, power {base, exponent},
//   product {factors, divisors}, total {terms, signs}, over {over: "sum" or "max", letters, body}.

let TRANSLATED = {}; // The sentences in the language of the page, by the English ones.

/** A sentence in the language of the page, with the values in its {}. */
function _(text, ...values) {
  return (TRANSLATED[text] ?? text).replace(/\{\}/g, () => String(values.shift()));
}

const MOST_CHARACTERS = 1000, MOST_DEPTH = 60, AROUND = 30;
const GREEK = {
  alpha: "α", beta: "β", gamma: "γ", delta: "δ", epsilon: "ε", eta: "η", lambda: "λ", mu: "μ", nu: "ν", sigma: "σ",
  sqrt: "√", sum: "Σ", partial: "∂", varepsilon: "ε", eps: "ε", sigmoid: "σ", ln: "log", ReLU: "relu",
};
const COMMANDS = {
  cdot: "·", times: "·", odot: "·", le: "≤", leq: "≤", ge: "≥", geq: "≥", ne: "≠", neq: "≠", gt: ">", lt: "<", prime: "′",
};
const SIGNS = { ">": ">", "<": "<", ">=": "≥", "<=": "≤", "≥": "≥", "≤": "≤", "=": "=", "==": "=", "≠": "≠", "!=": "≠" };
const HAT = "\u0302"; // Over the letter before it.
const RAISED = "⁰¹²³⁴⁵⁶⁷⁸⁹⁻", LOWERED = "0123456789-";
const TOKEN = new RegExp([
  String.raw`(?<space>(?:\s|\\[,;:! ]|\\(?:left|right|quad|displaystyle)(?![A-Za-z]))+)`,
  String.raw`(?<number>\d+(?:\.\d+)?|\.\d+)`,
  String.raw`(?<hat>\\hat\s*\{?\s*(?<under>\\?[A-Za-zα-ω]+)\s*\}?)`,
  String.raw`(?<name>[∂d]?[α-ω]\u0302?|∂[A-Za-z]*[0-9]*\u0302?|\\?[A-Za-z]+[0-9]*\u0302?)`,
  String.raw`(?<raised>[⁰¹²³⁴⁵⁶⁷⁸⁹⁻]+)`,
  String.raw`(?<sign>\*\*|[><!=]=|[-+−–*·×⋅⊙/^_()\[\]{},=<>≤≥≠√Σ∑'′’ᵀ])`,
].join("|"), "y");
const SAME = { "−": "-", "–": "-", "*": "·", "×": "·", "⋅": "·", "⊙": "·", "∑": "Σ", "'": "′", "’": "′", "**": "^" };
const CLOSING = { "(": ")", "[": "]", "{": "}" };
const FUNCTION_ARGUMENTS = {
  exp: 1, log: 1, sqrt: 1, max: 2, min: 2, "σ": 1, "σ′": 1, tanh: 1, "tanh′": 1, relu: 1, "relu′": 1, gelu: 1, "gelu′": 1,
};

class FormulaError extends Error {}

const isLower = (text) => text === text.toLowerCase() && text !== text.toUpperCase();
const has = (object, name) => Object.hasOwn(object, name);

/** A name with Greek letters and hats: dgamma is dγ, xhat is x̂. */
function canonical(written) {
  const name = written.replaceAll("\\", "");
  if (has(GREEK, name)) return GREEK[name];
  const prefix = name[0] === "d" || name[0] === "∂" ? name[0] : "";
  let rest = name.slice(prefix.length);
  const hat = rest.endsWith("hat") && rest.length > 3 ? "\u0302" : "";
  if (hat) rest = rest.slice(0, -3);
  const greek = has(GREEK, rest) ? GREEK[rest] : rest;
  return hat || greek !== rest ? prefix + greek + hat : name;
}

/** The words and signs of a formula, each {kind, text, at, end}, then one that ends it. */
function tokensOf(text) {
  if (text.length > MOST_CHARACTERS) throw new FormulaError(_("expected at most {} characters", MOST_CHARACTERS));
  const found = [];
  let at = 0;
  while (at < text.length) {
    TOKEN.lastIndex = at;
    const match = TOKEN.exec(text);
    if (!match) throw errorAt(text, at, _("what does {} mean?", text[at]));
    const start = at, groups = match.groups;
    let kind = ["space", "number", "hat", "name", "raised", "sign"].find((one) => groups[one] !== undefined), word = match[0];
    at += word.length;
    if (kind === "hat") [kind, word] = ["name", canonical(groups.under) + "\u0302"];
    else if (kind === "name") {
      word = canonical(word);
      const command = has(COMMANDS, word) ? COMMANDS[word] : word;
      if (command !== word || word === "√" || word === "Σ") [kind, word] = ["sign", command];
    } else if (kind === "raised") word = [...word].map((sign) => LOWERED[RAISED.indexOf(sign)]).join("");
    const last = found.at(-1);
    if (kind === "sign") {
      word = has(SAME, word) ? SAME[word] : word;
      if (word === "′" && last?.kind === "name" && last.end === start) {
        found[found.length - 1] = { ...last, text: last.text + "′", end: at };
        continue;
      }
    }
    // \partial L, d\gamma.
    const begun = last?.kind === "name" && kind === "name" ? last.text : "";
    if (last && (begun === "∂" || (begun === "d" && match[0].startsWith("\\")))) {
      found[found.length - 1] = { ...last, text: last.text + word, end: at };
      continue;
    }
    if (kind !== "space") found.push({ kind, text: word, at: start, end: at });
  }
  return [...found, { kind: "end", text: "", at: text.length, end: text.length }];
}

function errorAt(text, at, message) {
  let before = text.slice(0, at).trimStart(), after = text.slice(at).trimEnd();
  if (before.length > AROUND) before = "…" + before.slice(-AROUND);
  after = shortened(after, AROUND);
  return new FormulaError(_("{}, at the arrow: {}", message, `${before}→${after}`));
}

const shortened = (text, most) => (text.length <= most ? text : `${text.slice(0, most - 1)}…`);

/** The parts of which a part is made. */
function partsOf(node) {
  switch (node.kind) {
    case "entry": return node.indices;
    case "condition": case "total": return node.terms;
    case "call": return node.arguments;
    case "power": return [node.base, node.exponent];
    case "product": return [...node.factors, ...node.divisors];
    case "over": return [node.body];
    default: return [];
  }
}

/** The part itself, and all within it. */
function walk(node) {
  return [node, ...partsOf(node).flatMap(walk)];
}

/** The letters of an entry's indices; "" for each that is not a single letter. */
function lettersOf(indices) {
  return indices.map((one) => (one.kind === "letter" ? one.letter : ""));
}

/** The indices of a part that it does not sum over. */
function freeLetters(node) {
  if (node.kind === "letter") return new Set([node.letter]);
  const within = new Set(partsOf(node).flatMap((part) => [...freeLetters(part)]));
  if (node.kind === "over") node.letters.forEach((letter) => within.delete(letter));
  return within;
}

/** A formula; `names` are {ranks: the number of indices of each array, scalars: a Set}. */
function parse(text, names) {
  return new Parser(text, names).formula();
}

class Parser {
  constructor(text, { ranks, scalars }) {
    Object.assign(this, { text, ranks, scalars, tokens: tokensOf(text), place: 0, depth: 0, inCondition: false });
  }

  // Tokens.
  get next() { return this.tokens[this.place]; }

  get end() { return this.tokens[this.place - 1].end; }

  after(count = 1) { return this.tokens[Math.min(this.place + count, this.tokens.length - 1)]; }

  take() {
    const token = this.next;
    this.place = Math.min(this.place + 1, this.tokens.length - 1);
    return token;
  }

  takes(...signs) {
    if (this.next.kind !== "sign" || !signs.includes(this.next.text)) return false;
    this.take();
    return true;
  }

  expect(sign) { if (!this.takes(sign)) this.fail(_("expected {}", sign)); }

  fail(message, at = this.next.at) { throw errorAt(this.text, at, message); }

  isSign(...signs) { return isSign(this.next, ...signs); }

  rankOf(name) { return has(this.ranks, name) ? this.ranks[name] : null; }

  // Formulas.
  formula() {
    const [name, letters] = this.target();
    this.expect("=");
    if (this.next.kind === "end") this.fail(_("nothing is on the right"));
    const value = this.expression();
    if (this.next.kind !== "end") this.fail(_("expected the end, got {}", this.next.text));
    this.expectLetters(name, letters, value);
    return { name, letters, value, text: this.text.trim() };
  }

  /** Each letter on the right is either on the left or summed. */
  expectLetters(name, letters, value) {
    for (const letter of [...freeLetters(value)].sort()) {
      if (!letters.includes(letter)) {
        throw new FormulaError(_("{} is on the right but neither summed nor on the left", letter));
      }
    }
    for (const node of walk(value)) {
      const summed = node.kind === "over" ? node.letters.find((letter) => letters.includes(letter)) : undefined;
      if (summed) throw new FormulaError(_("you sum over {}, but {} names the entry of {}", summed, summed, name));
    }
  }

  target() {
    const token = this.next;
    let name, indices;
    if (token.text === "frac") [name, indices] = this.fractionOfDifferentials() ?? ["", []];
    else {
      name = this.differential() || (token.kind === "name" ? this.take().text : "");
      indices = name ? this.subscript(null) : [];
    }
    const letters = lettersOf(indices);
    if (!name) this.fail(_("expected a name such as dW_dk"), token.at);
    if (letters.includes("") || new Set(letters).size < letters.length) {
      this.fail(_("each index on the left is a different letter"), token.at);
    }
    return [name, letters];
  }

  /** The name dW of ∂L/∂W, which is taken; "" if something else is next. */
  differential() {
    const over = this.next, slash = this.after(), under = this.after(2);
    const starts = over.kind === "name" && ["∂L", "dL"].includes(over.text) && under.kind === "name";
    if (starts && isSign(slash, "/") && ["∂", "d"].includes(under.text[0])) {
      if (over.text === "dL" && this.rankOf(under.text) === null) return "";
      this.place += 3;
      return `d${under.text.slice(1)}`;
    }
    return "";
  }

  /** The gradient \frac{∂L}{∂W_dk}; null, and nothing is taken, if something else is next. */
  fractionOfDifferentials() {
    const texts = [0, 1, 2, 3, 4].map((count) => this.after(count).text).join(" "), under = this.after(5);
    if (!["frac { ∂L } {", "frac { dL } {"].includes(texts)) return null;
    if (under.kind !== "name" || !["∂", "d"].includes(under.text[0])) return null;
    this.place += 6;
    const name = `d${under.text.slice(1)}`, indices = this.subscript(this.rankOf(name));
    this.expect("}");
    return [name, indices];
  }

  // Expressions.
  /** Counts how deep the parts within parts are. */
  deeper(part) {
    this.depth += 1;
    if (this.depth > MOST_DEPTH) this.fail(_("too many brackets"));
    const found = part();
    this.depth -= 1;
    return found;
  }

  expression() {
    const signs = [this.isSign("-") ? -1 : 1];
    this.takes("+", "-");
    const terms = [this.term()];
    while (this.isSign("+", "-")) {
      signs.push(this.take().text === "-" ? -1 : 1);
      terms.push(this.term());
    }
    return signs.length === 1 && signs[0] === 1 ? terms[0] : { kind: "total", terms, signs };
  }

  term() { return this.deeper(() => this.product()); }

  product() {
    const factors = [], divisors = [];
    let below = false;
    for (;;) {
      const sumBegins = this.beginsOver();
      const factor = sumBegins ? this.over() : this.factor(factors.length > 0);
      (below ? divisors : factors).push(factor);
      below = false;
      if (sumBegins) break;
      if (this.takes("/")) below = true;
      else if (!this.takes("·") && !this.beginsFactor()) break;
    }
    return factors.length === 1 && !divisors.length ? factors[0] : { kind: "product", factors, divisors };
  }

  beginsFactor() {
    const token = this.next;
    if (token.kind === "number" && this.tokens[this.place - 1].kind === "number") this.fail(_("two numbers in a row"));
    return token.kind === "name" || token.kind === "number" || this.isSign("(", "[", "{", "√", "Σ");
  }

  factor(minus = false) { return this.deeper(() => this.power(minus)); }

  power(minus) {
    if (minus && this.takes("-")) return { kind: "total", terms: [this.factor()], signs: [-1] };
    const base = this.primary(), token = this.next;
    this.expectNoTranspose();
    if (token.kind === "raised") {
      this.take();
      return { kind: "power", base, exponent: this.signedNumber(token) };
    }
    return this.takes("^") ? { kind: "power", base, exponent: this.exponent() } : base;
  }

  expectNoTranspose() {
    if (this.isSign("ᵀ") || (this.isSign("^") && ["T", "\\top"].includes(this.after().text))) {
      this.fail(_("index notation has no ᵀ: exchange the indices"));
    }
  }

  signedNumber(token) {
    if (!/^-?\d+$/.test(token.text)) this.fail(_("expected a number"), token.at);
    const value = Number(token.text), number = { kind: "number", value: Math.abs(value) };
    return value >= 0 ? number : { kind: "total", terms: [number], signs: [-1] };
  }

  exponent() { return this.takes("-") ? { kind: "total", terms: [this.primary()], signs: [-1] } : this.primary(); }

  primary() {
    const token = this.next;
    if (token.kind === "number") {
      this.take();
      return { kind: "number", value: Number(token.text) };
    }
    if (this.isSign("[") && this.compares()) return this.condition();
    if (this.isSign("(", "[", "{")) {
      this.take();
      const inner = this.expression();
      this.expect(CLOSING[token.text]);
      return inner;
    }
    if (this.takes("√")) return { kind: "call", function: "sqrt", arguments: [this.factor()] };
    if (token.kind === "name") return this.named();
    if (this.beginsOver()) return this.over();
    return this.fail(_("expected a factor, got {}", token.kind === "end" ? _("the end") : shortened(token.text, AROUND)));
  }

  named() {
    const token = this.next, gradient = this.differential();
    if (gradient) return this.entry(gradient, token);
    if (token.text === "frac") {
      const found = this.fractionOfDifferentials();
      return found ? this.checked(...found, token) : this.fraction();
    }
    this.take();
    const name = token.text, subscripted = this.isSign("_") || (this.isSign("[") && !this.compares());
    const isArray = this.rankOf(name) !== null;
    if (has(FUNCTION_ARGUMENTS, name) && !(isArray && subscripted)) return this.call(name);
    if ((name === "δ" || name === "delta") && this.rankOf("δ") === null) return this.delta(token);
    const isLetter = name.length === 1 && isLower(name) && !subscripted;
    const isNumber = this.scalars.has(name) || this.rankOf(name) === 0;
    if (isLetter && this.inCondition && !isNumber) return { kind: "letter", letter: name };
    if (isArray) return this.entry(name, token);
    if (this.scalars.has(name)) return { kind: "scalar", name };
    if (name === "e" && this.takes("^")) return { kind: "call", function: "exp", arguments: [this.exponent()] };
    return this.failUnknown(name, token);
  }

  failUnknown(name, token) {
    const known = [...Object.keys(this.ranks), ...[...this.scalars].sort()].join(", ");
    this.fail(_("unknown name {}; known are {}", name, known), token.at);
  }

  entry(name, token) { return this.checked(name, this.subscript(this.rankOf(name)), token); }

  checked(name, indices, token) {
    const rank = this.rankOf(name), text = this.text.slice(token.at, this.end);
    if (rank === null) this.failUnknown(name, token);
    this.expectNoTranspose();
    if (rank !== indices.length) this.fail(_("indices of {}: expected {}, got {}", name, rank, indices.length), token.at);
    return { kind: "entry", name, indices, text };
  }

  fraction() {
    this.take();
    const [over, under] = [0, 1].map(() => {
      this.expect("{");
      const part = this.expression();
      this.expect("}");
      return part;
    });
    return { kind: "product", factors: [over], divisors: [under] };
  }

  call(name) {
    const takes = FUNCTION_ARGUMENTS[name];
    if (!this.takes("(")) {
      if (takes > 1) this.fail(_("expected {}", "("));
      return { kind: "call", function: name, arguments: [this.factor()] };
    }
    const given = [this.expression()];
    while (this.takes(",")) given.push(this.expression());
    if (given.length !== takes) this.fail(_("arguments of {}: expected {}, got {}", name, takes, given.length));
    this.expect(")");
    return { kind: "call", function: name, arguments: given };
  }

  delta(token) {
    const indices = this.isSign("(") ? this.indicesUntil(")") : this.subscript(2);
    if (indices.length !== 2) this.fail(_("indices of {}: expected {}, got {}", "δ", 2, indices.length), token.at);
    return { kind: "condition", terms: indices, signs: ["="] };
  }

  // Conditions.
  /** Whether the bracket that is next holds a comparison. */
  compares() {
    let depth = 0;
    for (const { kind, text } of this.tokens.slice(this.place)) {
      if (kind !== "sign") continue;
      if (has(CLOSING, text)) depth += 1;
      else if (Object.values(CLOSING).includes(text)) {
        depth -= 1;
        if (depth <= 0) return false;
      } else if (depth && has(SIGNS, text)) return true;
    }
    return false;
  }

  condition() {
    this.take();
    const outside = this.inCondition, signs = [];
    this.inCondition = true;
    const terms = [this.expression()];
    while (this.next.kind === "sign" && has(SIGNS, this.next.text)) {
      signs.push(SIGNS[this.take().text]);
      terms.push(this.expression());
    }
    this.inCondition = outside;
    this.expect("]");
    return { kind: "condition", terms, signs };
  }

  // Sums and maxima over indices.
  beginsOver() {
    if (this.isSign("Σ")) return true;
    if (this.next.kind !== "name" || this.next.text !== "max") return false;
    if (isSign(this.after(), "_")) return true;
    let place = this.place + 1;
    if (!isSign(this.tokens[place], "(")) return false;
    while (!isSign(this.tokens[place], ")")) {
      place += 1;
      const token = this.tokens[place], isLetter = token.kind === "name" && !this.scalars.has(token.text);
      if (!isLetter && !isSign(token, ",", ")")) return false;
    }
    return this.tokens[place + 1].kind === "name";
  }

  over() {
    const token = this.take(), over = token.text === "Σ" ? "sum" : "max";
    const letters = lettersOf(this.isSign("(") ? this.indicesUntil(")") : this.subscript(null));
    if (!letters.length || letters.includes("") || new Set(letters).size < letters.length) {
      this.fail(_("expected letters after the sum, such as Σ_b"), token.at);
    }
    if (letters.some((one) => one !== one.toLowerCase()) || !this.beginsFactor()) {
      this.fail(_("expected a space and a term after the letters of the sum"), token.at);
    }
    return { kind: "over", over, letters, body: this.term() };
  }

  // Indices.
  subscript(rank) {
    if (rank === 0) return [];
    if (this.isSign("[")) return this.compares() ? [] : this.indicesUntil("]");
    if (!this.takes("_")) return [];
    return this.isSign("{") ? this.indicesUntil("}") : this.tightIndices(rank);
  }

  indicesUntil(closing) {
    this.take();
    const found = [];
    while (!this.isSign(closing)) {
      if (this.next.kind === "end") this.fail(_("expected {}", closing));
      found.push(...this.indexItem());
      this.takes(",");
    }
    this.take();
    return found;
  }

  /** Indices without brackets: bd, or b,i+p,c with commas and no space. */
  tightIndices(rank) {
    if (this.next.kind !== "name" && this.next.kind !== "number") this.fail(_("expected an index"));
    const found = this.lettersOfToken(this.take());
    while (rank !== null && found.length < rank) {
      const { end } = this;
      if (!this.isSign(",") || this.next.at !== end || this.after().at !== this.next.end) break;
      this.take();
      found.push(...this.indexItem(true));
    }
    return found;
  }

  /** One index, which may be shifted; or several letters that follow each other. */
  indexItem(tight = false) {
    const start = this.place, found = this.indexSum(tight);
    const alone = this.place === start + 1 && this.tokens[start].kind === "name";
    return alone ? this.lettersOfToken(this.tokens[start]) : [found];
  }

  indexSum(tight) {
    const signs = [this.takes("-") ? -1 : 1], terms = [this.indexProduct(tight)];
    while (this.isSign("+", "-") && !(tight && this.endsIndex())) {
      signs.push(this.take().text === "-" ? -1 : 1);
      terms.push(this.indexProduct(tight));
    }
    return signs.length === 1 && signs[0] === 1 ? terms[0] : { kind: "total", terms, signs };
  }

  /** Whether a + or - after an index without brackets does not belong to it. */
  endsIndex() {
    const sign = this.next, token = this.after(), behind = this.after(2);
    const apart = sign.at !== this.end || token.at !== sign.end;
    const named = token.kind === "name" && isSign(behind, "_", "[", "(");
    return apart || named || (token.kind === "name" && !isLower(token.text));
  }

  indexProduct(tight) {
    const factors = [];
    for (;;) {
      const token = this.next;
      if (factors.length && tight && token.at !== this.end) break;
      if (token.kind === "number") {
        this.take();
        factors.push({ kind: "number", value: Number(token.text) });
      } else if (token.kind === "name") factors.push(...this.lettersOfToken(this.take()));
      else if (this.takes("(")) {
        factors.push(this.deeper(() => this.indexSum(false)));
        this.expect(")");
      } else if (!factors.length) this.fail(_("expected an index"));
      const follows = this.next.kind === "number" || this.next.kind === "name" || this.isSign("(");
      if (!this.takes("·") && !follows) break;
    }
    return factors.length === 1 ? factors[0] : { kind: "product", factors, divisors: [] };
  }

  lettersOfToken(token) {
    if (token.kind === "number") return [{ kind: "number", value: Number(token.text) }];
    if (this.scalars.has(token.text)) return [{ kind: "scalar", name: token.text }];
    const source = this.text.slice(token.at, token.end);
    if (!/^\p{L}+$/u.test(source)) this.fail(_("expected an index"), token.at);
    return [...source].map((one) => (this.scalars.has(one) ? { kind: "scalar", name: one } : { kind: "letter", letter: one }));
  }
}

function isSign(token, ...signs) {
  return token.kind === "sign" && signs.includes(token.text);
}
