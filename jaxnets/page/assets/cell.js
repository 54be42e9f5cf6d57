"use strict";
// The box with the sum behind the chosen number.

const FEW = 12; // Further terms are summed up in one line, until the user asks for all.

let chosenCell = null; // {n, view, index, all, map}

/** Shows a number's sum; `focus` moves the keyboard there. */
function showCell(n, view, index, map, focus = false) {
  if (chosenCell && chosenCell.map !== map) chosenCell.map?.mark(null);
  chosenCell = { n, view, index, map, all: false, checked: false };
  renderCell();
  if (focus) byId("cell-title").focus();
}

function closeCell() {
  const map = chosenCell?.map;
  map?.mark(null);
  chosenCell = null;
  byId("cell").hidden = true;
  document.body.classList.remove("with-cell");
  map?.canvas.focus({ preventScroll: true });
}

/** Redraws the box with the present numbers. */
function renderCell() {
  if (!chosenCell) return;
  const { n, view, index } = chosenCell;
  const gradient = ["dx", "dW", "db", "dscale", "dshift", "dz", "mask", "winners"].includes(view);
  if (!state.pass || (gradient && !state.back)) return closeCell();
  const found = explain(state, n, view, index);
  byId("cell").hidden = false;
  document.body.classList.add("with-cell");
  const value = (view === "p" ? share : digits)(found.value);
  byId("cell-title").textContent = say("cellTitle", { layer: layerTitle(n), symbol: found.symbol, value });
  byId("cell-formula").replaceChildren(...formulaNodes(found.formula ?? ""));
  byId("cell-sum").replaceChildren(found.terms ? termsTable(found) : linesTable(found.lines));
  const link = byId("cell-link"), place = found.anchor && derivation(found.anchor);
  link.hidden = !place;
  link.textContent = say(RUN.repository ? "derivation" : "derivationIn", { place });
  if (RUN.repository) link.href = `${RUN.repository}/blob/main/${place}`;
  renderCheck(found);
}

/** The file and heading of a derivation, in the language of the page if it is translated. */
function derivation(place) {
  if (place.endsWith(".py")) return `jaxnets/backprop/${place}`;
  const [page, anchor] = place.split("#");
  const chinese = language === "zh";
  return `docs/${chinese ? "zh/" : ""}backprop/${page}#${chinese ? CHINESE_ANCHORS[anchor] : anchor}`;
}

function linesTable(lines) {
  const rows = lines.map(([text, value]) =>
    element("tr", {}, element("th", { scope: "row" }, ...formulaNodes(text)), element("td", { text: digits(value) })));
  return element("table", {}, element("tbody", {}, ...rows));
}

function termsTable({ head, terms, extra, value }) {
  const cell = (text, tag = "td") => element(tag, { text });
  const products = terms.map(([where, a, b]) => ({ where, a, b, value: a * b }));
  let shown = products;
  if (products.length > FEW && !chosenCell.all) {
    shown = [...products].sort((a, b) => Math.abs(b.value) - Math.abs(a.value)).slice(0, FEW);
  }
  const body = element("tbody");
  for (const term of shown) {
    body.append(element("tr", {}, element("th", { text: term.where, scope: "row" }),
      cell(digits(term.a)), cell(digits(term.b)), cell(digits(term.value))));
  }
  const line = (text, number, className = "") =>
    body.append(element("tr", { className }, element("th", { text, scope: "row", colspan: 3 }), cell(digits(number))));
  if (shown.length < products.length) {
    const rest = products.reduce((sum, term) => sum + term.value, 0) - shown.reduce((sum, term) => sum + term.value, 0);
    line(say("rest", { count: count(products.length - shown.length) }), rest);
  }
  extra.forEach(([text, number]) => line(text, number));
  line(say("sum"), value, "total");
  const titles = [say("where"), ...head, say("product")].map((text) => element("th", { text, scope: "col" }));
  const table = element("table", { className: "terms" }, element("thead", {}, element("tr", {}, ...titles)), body);
  if (shown.length === products.length) return table;
  const all = element("button", { type: "button", text: say("showAll", { count: count(products.length) }) });
  all.addEventListener("click", () => {
    chosenCell.all = true;
    renderCell();
    byId("cell-title").focus();
  });
  return element("div", {}, table, all);
}

function renderCheck(found) {
  const place = byId("cell-check");
  place.replaceChildren();
  if (!found.check) return;
  if (!chosenCell.checked) {
    const button = element("button", { type: "button", id: "check", text: say("check") });
    button.addEventListener("click", () => {
      chosenCell.checked = true;
      renderCell();
      byId("check-result").focus();
    });
    place.append(button);
    return;
  }
  const { epsilon, above, below, central, left, right, difference, verdict } =
    checkDerivative(state, found.check, found.value);
  const rows = linesTable([["L(v + ε)", above], ["L(v − ε)", below], [say("central"), central], [say("derived"), found.value]]);
  const [lossAbove, lossBelow] = rows.querySelectorAll("td"); // Four digits would show no difference.
  lossAbove.textContent = digits(above, 12);
  lossBelow.textContent = digits(below, 12);
  const text = say(verdict, { left: digits(left), right: digits(right), difference: digits(difference) });
  place.append(
    element("p", { text: say("checkText", { epsilon }) }), rows,
    element("p", { id: "check-result", tabindex: -1, className: verdict === "differ" ? "bad" : "good", text }));
}

function initCell() {
  byId("cell-close").addEventListener("click", closeCell);
  byId("cell").addEventListener("keydown", (event) => {
    if (event.key === "Escape") closeCell();
  });
}
