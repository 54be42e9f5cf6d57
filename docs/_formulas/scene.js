"use strict";
// A layer's small arrays with numbers, beside a formula: its indices light their axes, an entry opens as
// its sum, and whatever is computed follows a number that is changed.

const SEED = 9; // Its numbers differ.
const LONGEST_LINE = 100; // Of code that is shown.
const COLOURS = 6; // Of letters: CSS has them as --letter-1 and so on.

/** An element with attributes and children. */
function make(tag, { text, ...attributes } = {}, ...children) {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

/** Small numbers that are easy to read: whole ones, a label as a row with one 1, shares in tenths. */
function easyNumbers(layer, sizes, seed) {
  const random = randomOf(seed), arrays = {}, below = (most) => Math.floor(most * random());
  const hasMax = layer.steps.some(({ value }) => walk(value).some((node) => node.over === "max")); // Then without ties.
  for (const name of Object.keys(layer.drawn)) {
    const shape = layer.axes[name].map((size) => sizes[size]), count = shape.reduce((a, b) => a * b, 1), width = shape.at(-1) ?? 1;
    const kind = layer.kinds[name];
    let data = Float64Array.from({ length: count }, () => [-3, -2, -1, 1, 2, 3, 4][below(7)]);
    if (hasMax) data = Float64Array.from({ length: count }, (_, n) => ((7 * n + 3) % count) - 4); // Each once: 7 and the count have no factor.
    if (kind === "mask") data = Float64Array.from({ length: count }, (_, n) => (n % 3 === 1 ? 0 : 1));
    if (kind === "ties") data = Float64Array.from({ length: count }, () => below(6) - 2);
    if (kind === "shares") {
      const isLabel = name === "y";
      for (let at = 0; at < count; at += width) {
        const parts = Array.from({ length: width }, () => 1 + below(3)), chosen = below(width);
        let rest = 10;
        parts.forEach((part, n) => {
          const tenths = n === width - 1 ? rest : Math.min(part, rest - (width - 1 - n));
          rest -= tenths;
          data[at + n] = isLabel ? Number(n === chosen) : tenths / 10;
        });
      }
    }
    if (name === "dL") data.fill(1);
    arrays[name] = { shape, data };
  }
  return arrays;
}

/** A number that fits into a cell: 2, −0.25, 12.3, 104. */
function cellNumber(x) {
  const size = Math.abs(x), text = x.toFixed(Number.isInteger(x) || size >= 100 ? 0 : size >= 10 ? 1 : 2);
  return text.replace(/(\.\d)0$/, "$1").replace(/^-(?=0[.0]*$)/, "").replace("-", "−");
}

/** Which axes are blocks, rows and columns: of images and kernels the two that are places. */
function layoutOf(letters) {
  const axes = letters.map((_letter, n) => n);
  if (axes.length < 3) return { blocks: [], rows: axes.length === 2 ? 0 : null, columns: axes.length ? axes.at(-1) : null };
  const rows = axes.length === 4 && letters[0].includes("b") ? 1 : 0;
  return { blocks: axes.filter((axis) => axis !== rows && axis !== rows + 1), rows, columns: rows + 1 };
}

/** An array as a figure. Its given numbers can be changed, and its computed ones can be opened. */
class ArrayView {
  /** `letters` are those of each axis; `words` say what it is; `change` and `open` take a place. */
  constructor({ name, shape, letters, words, change, open }) {
    Object.assign(this, { name, shape, letters, change, open, cells: [] });
    const plain = letters.map((each) => ({ kind: "letter", letter: each[0] }));
    const title = math("math", [mathOfEntry({ name, indices: plain }, {})]);
    const { blocks, rows, columns } = layoutOf(letters), label = (axis) => letters[axis].flatMap((letter, n) => [...(n ? [", "] : []), make("b", { text: letter, "data-letter": letter })]);
    const combinations = blocks.reduce((all, axis) => all.flatMap((one) => Array.from({ length: shape[axis] }, (_, n) => ({ ...one, [axis]: n }))), [{}]);
    const drawn = combinations.map((fixed) => {
      const which = blocks.flatMap((axis, n) => [n ? ", " : "", ...label(axis), ` = ${fixed[axis]}`]);
      const cells = make("div", { class: "cells", role: "group", "aria-label": `${pythonName(name)} ${Object.values(fixed).join(", ")}`.trim() });
      const height = rows === null ? 1 : shape[rows], width = columns === null ? 1 : shape[columns];
      cells.style.setProperty("--columns", width);
      for (let r = 0; r < height; r++) {
        for (let c = 0; c < width; c++) {
          const index = shape.map((_size, axis) => (axis === rows ? r : axis === columns ? c : fixed[axis]));
          cells.append(this.cell(index));
        }
      }
      cells.addEventListener("keydown", (event) => this.move(event, [...cells.children], width));
      return make("div", { class: "block" },
        ...(which.length ? [make("span", { class: "which" }, ...which)] : []),
        make("div", { class: "axes" },
          make("span", { class: "axis across", "aria-hidden": "true" }, ...(columns === null ? [] : [...label(columns), " →"])),
          make("span", { class: "axis down", "aria-hidden": "true" }, ...(rows === null ? [] : [...label(rows), " ↓"])),
          cells));
    });
    this.element = make("figure", { class: `array${change ? " given" : ""}`, "data-name": name },
      make("figcaption", {}, title, ...(words ? [make("span", { text: words })] : [])), make("div", { class: "blocks" }, ...drawn));
  }

  cell(index) {
    const at = index.reduce((sum, n, axis) => sum * this.shape[axis] + n, 0), first = at === 0 ? "0" : "-1";
    const made = this.change ? make("input", { inputmode: "decimal", autocomplete: "off", tabindex: first }) : make("button", { type: "button", tabindex: first });
    if (this.change) {
      made.addEventListener("focus", () => made.select());
      made.addEventListener("input", () => {
        const x = Number(made.value.replace("−", "-").replace(",", "."));
        if (made.value.trim() && Number.isFinite(x)) this.change(at, x);
      });
    } else made.addEventListener("click", () => this.open?.(index));
    this.cells[at] = { made, index };
    return made;
  }

  /** The arrow keys go from cell to cell; one of them is reached by Tab. */
  move(event, cells, width) {
    const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -width, ArrowDown: width }[event.key];
    const next = cells[cells.indexOf(document.activeElement) + step];
    if (!step || !next || next.disabled) return;
    event.preventDefault();
    cells.forEach((one) => { one.tabIndex = one === next ? 0 : -1; });
    next.focus();
  }

  /** The numbers; null where they are not known yet. */
  show(data, chosen = null) {
    this.cells.forEach(({ made, index }, at) => {
      const text = data ? cellNumber(data[at]) : "?", place = index.length ? ` ${index.join(", ")}` : "";
      if (!this.change) {
        made.textContent = text;
        made.disabled = !data || !this.open;
        if (this.open) made.setAttribute("aria-pressed", String(chosen === at));
      } else if (document.activeElement !== made) made.value = text;
      made.setAttribute("aria-label", this.change ? `${pythonName(this.name)}${place}` : `${pythonName(this.name)}${place}: ${text}`);
    });
  }

  mark(places) {
    this.cells.forEach(({ made }, at) => made.classList.toggle("used", Boolean(places?.has(at))));
  }
}

/** The letters of a formula: those on its left, then those that it sums over. */
function lettersIn(formula) {
  return unique([...formula.letters, ...walk(formula.value).flatMap((node) => (node.kind === "over" ? node.letters : []))]);
}

class Scene {
  /** `root` has all that is lit; within it `own` is for the formula's array, `place` for the others, `sum` for a sum. */
  constructor({ root, own, place, sum, layer, sizes, seed = SEED, words = () => "" }) {
    Object.assign(this, { root, own, place, sum, layer, sizes, words, views: new Map(), given: easyNumbers(layer, sizes, seed), lit: null, chosen: null });
    this.compute();
  }

  /** What follows from the given numbers. */
  compute() {
    const all = [...this.layer.steps, ...Object.values(this.layer.gradients)];
    this.values = this.layer.computed(this.layer.values(this.given, this.sizes), all);
  }

  /** The formula of an array: that which is shown, or the layer's own. */
  formulaOf(name) {
    if (this.formula?.name === name) return this.formula;
    return this.layer.steps.find((one) => one.name === name) ?? this.layer.gradients[name];
  }

  /** The layer's numbers for a formula, whose letters may be others than the layer's. */
  valuesFor(formula) {
    const sizes = sizesOf(this.layer, formula);
    if (typeof sizes === "string") return this.values;
    const letters = Object.entries(sizes).map(([letter, size]) => [letter, this.sizes[size]]);
    return { ...this.values, sizes: Object.fromEntries(letters) };
  }

  /** The given arrays from which an array follows. */
  rootsOf(name) {
    if (has(this.layer.drawn, name)) return [name];
    const found = this.formulaOf(name);
    return unique(walk(found.value).filter(({ kind }) => kind === "entry").flatMap((one) => this.rootsOf(one.name)));
  }

  /**
   * Draws the arrays of a formula, and those that are given. `known` says whether the numbers of its own
   * array are shown; `shown` are further arrays.
   */
  draw(formula, { known = true, shown = [] } = {}) {
    Object.assign(this, { formula, known });
    const used = walk(formula.value).filter(({ kind }) => kind === "entry").map((one) => one.name);
    const names = unique([...used.flatMap((name) => this.rootsOf(name)), ...used, ...shown, formula.name]);
    const order = [...Object.keys(this.layer.drawn), ...this.layer.steps.map(({ name }) => name), ...Object.keys(this.layer.gradients)];
    names.sort((a, b) => (a === formula.name) - (b === formula.name) || order.indexOf(a) - order.indexOf(b));
    const letters = this.lettersOfAxes(formula);
    this.views = new Map(names.map((name) => [name, this.viewOf(name, letters)]));
    const elements = [...this.views.values()].map(({ element }) => element);
    this.own.replaceChildren(elements.pop());
    this.place.replaceChildren(...elements);
    if (this.chosen && !this.views.has(this.chosen.name)) this.chosen = null;
    this.colour();
    this.show();
  }

  viewOf(name, letters) {
    const given = has(this.layer.drawn, name), { shape } = this.values.arrays[name];
    const canOpen = name !== this.formula.name || this.known;
    return new ArrayView({
      name, shape, letters: letters(name), words: this.words(name),
      change: given ? (at, x) => {
        this.given[name].data[at] = x;
        this.compute();
        this.show();
      } : null,
      open: !given && canOpen ? (index) => this.choose(name, index) : null,
    });
  }

  /** For an array the letters of each axis: those by which a formula indexes it, or the layer's. */
  lettersOfAxes(formula) {
    const found = {}, add = (name, row) => row.forEach((letter, axis) => {
      found[name] ??= this.layer.axes[name].map(() => []);
      if (letter && !found[name][axis].includes(letter)) found[name][axis].push(letter);
    });
    for (const one of walk(formula.value)) if (one.kind === "entry") add(one.name, lettersOf(one.indices));
    add(formula.name, formula.letters);
    const usual = (name) => {
      if (has(this.layer.drawn, name)) return [...this.layer.drawn[name]];
      return this.formulaOf(name).letters;
    };
    return (name) => (found[name] ?? usual(name).map(() => [])).map((row, axis) => (row.length ? row : [usual(name)[axis]]));
  }

  /** Gives every letter of the formula a colour. */
  colour(root = this.root) {
    const own = this.layer.gradients[this.formula.name] ?? this.formula;
    const letters = unique([...lettersIn(own), ...lettersIn(this.formula), ...Object.keys(this.layer.letters)]);
    for (const each of root.querySelectorAll("[data-letter]")) {
      const n = letters.indexOf(each.dataset.letter);
      if (n >= 0) each.setAttribute("data-colour", (n % COLOURS) + 1);
      else each.removeAttribute("data-colour");
    }
    this.light(this.lit, root);
  }

  /** Lights a letter wherever it is; null lights none. */
  light(letter, root = this.root) {
    this.lit = letter;
    for (const each of root.querySelectorAll("[data-letter]")) each.classList.toggle("lit", each.dataset.letter === letter);
    for (const each of root.querySelectorAll(".axis, .which")) {
      const own = [...each.querySelectorAll("[data-letter]")].find((one) => one.dataset.letter === letter);
      if (own?.dataset.colour) each.setAttribute("data-colour", own.dataset.colour);
      each.classList.toggle("lit", Boolean(own));
    }
  }

  /** Opens an entry; once more closes it. */
  choose(name, index) {
    const at = index.reduce((sum, n, axis) => sum * this.values.arrays[name].shape[axis] + n, 0);
    this.chosen = this.chosen?.name === name && this.chosen.at === at ? null : { name, index, at };
    this.show();
  }

  /** The numbers, and the sum of the chosen entry. */
  show() {
    const { chosen } = this, found = chosen && this.openedBy(this.formulaOf(chosen.name), chosen.index);
    for (const [name, view] of this.views) {
      const known = name !== this.formula.name || this.known;
      view.show(known ? this.values.arrays[name].data : null, chosen?.name === name ? chosen.at : null);
      view.mark(found?.used[name]);
    }
    this.sum.replaceChildren(...(found ? this.sumOf(found) : []));
    if (found) this.colour(this.sum);
    this.root.querySelectorAll(".wide").forEach(letScroll);
  }

  openedBy(formula, index) { return opened(formula, this.valuesFor(formula), index); }

  sumOf({ bound, inner, rows, left, value }) {
    const formula = this.formulaOf(this.chosen.name), head = make("div", { class: "head wide" }, mathOf(formula, bound));
    const line = (where, text, x) => make("tr", {}, where.length ? make("th", { scope: "row" }, ...where) : make("td"), make("td", { text }), make("td", { class: "number", text: shortNumber(x) }));
    const lines = rows.map((each) => line(Object.entries(each.where).flatMap(([letter, n], at) => [at ? ", " : "", make("b", { text: letter, "data-letter": letter }), ` = ${n}`]), each.text, each.value));
    lines.unshift(...inner.map((each) => line(["Σ", ...each.letters.flatMap((letter) => [make("sub", { text: letter, "data-letter": letter })])], each.text, each.value)));
    if (left.count) lines.push(line([say("moreTerms", { count: left.count })], "", left.value));
    if (!rows.length) lines.push(line([say("noTerms")], "", 0));
    const total = line([say("together")], "", value);
    total.className = "total";
    const about = make("p", { class: "check", text: say("opened", { name: this.chosen.index.length ? `${this.chosen.name}[${this.chosen.index.join(", ")}]` : this.chosen.name }) });
    return [about, head, make("table", {}, make("tbody", {}, ...lines, total))];
  }
}

/** A formula that is wider than the screen scrolls, also by keys. */
function letScroll(box) {
  const isWider = box.scrollWidth > box.clientWidth + 1;
  if (isWider) Object.entries({ tabindex: "0", role: "group", "aria-label": say("wide") }).forEach(([name, value]) => box.setAttribute(name, value));
  else ["tabindex", "role", "aria-label"].forEach((name) => box.removeAttribute(name));
}

/** Whether a line of NumPy is one that a reader would write. */
const isShort = (line) => line !== "" && line.length <= LONGEST_LINE;

/** A line of code whose einsum letters have data-letter. */
function codeWithLetters(line) {
  const code = make("code"), parts = line.split(/("[a-z,]*->[a-z]*")/);
  for (const part of parts) {
    if (!part.startsWith('"')) code.append(part);
    else for (const sign of part) code.append(/[a-z]/.test(sign) ? make("span", { text: sign, "data-letter": sign }) : sign);
  }
  return code;
}

/** The indices of a formula as buttons, for a mouse, a finger and the Tab key. */
function chipsOf(formula, scene, sizes) {
  const chips = lettersIn(formula).map((letter) => {
    const size = sizes[letter], kind = say(formula.letters.includes(letter) ? "free" : "summed");
    const chip = make("button", { type: "button", class: "chip", "data-letter": letter, "aria-pressed": "false" },
      make("b", { text: letter }), ` ${kind}: 0…${size - 1}`);
    chip.addEventListener("focus", () => scene.light(letter));
    chip.addEventListener("click", () => {
      const pressed = chip.getAttribute("aria-pressed") !== "true";
      chips.forEach((one) => one.setAttribute("aria-pressed", String(one === chip && pressed)));
      scene.light(pressed ? letter : null);
    });
    return chip;
  });
  return make("div", { class: "chips", role: "group", "aria-label": say("indices") }, ...chips);
}

/** Lights a letter while the pointer is on it; after that the one whose button is pressed. */
function lightsByPointer(root, scene) {
  const pinned = () => root.querySelector('.chip[aria-pressed="true"]')?.dataset.letter ?? null;
  root.addEventListener("pointerover", (event) => {
    const letter = event.target.closest?.("[data-letter]")?.dataset.letter;
    scene().light(letter ?? pinned());
  });
  root.addEventListener("pointerleave", () => scene().light(pinned()));
  root.addEventListener("focusout", () => scene().light(pinned()));
}
