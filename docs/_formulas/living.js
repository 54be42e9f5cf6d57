"use strict";
// Living formulas of the chapters: <div class="living" data-layer="dense" data-gradient="dW">, in which the
// plain formulas stand. `data-gradient` may name several.

function bringToLife(box) {
  const lesson = LESSONS.find((one) => one.layer === box.dataset.layer);
  const layer = new Layer(LAYERS[box.dataset.layer]), sizes = { ...layer.sizes, ...lesson.sizes };
  const names = box.dataset.gradient.split(" "), parts = ["written wide", "arrays own", "sum", "arrays"];
  const [written, own, sum, place] = parts.map((name) => make("div", { class: name, ...(name === "sum" ? { "aria-live": "polite" } : {}) }));
  const scene = new Scene({ root: box, own, place, sum, layer, sizes });
  const below = make("div");
  const show = (name) => {
    const formula = scene.formulaOf(name), line = numpyLine(formula, layer.letters, layer, true);
    const letters = Object.fromEntries(Object.entries(layer.letters).map(([letter, size]) => [letter, sizes[size]]));
    written.replaceChildren(mathOf(formula));
    below.replaceChildren(chipsOf(formula, scene, letters), ...(isShort(line) ? [make("pre", {}, codeWithLetters(line))] : []));
    scene.draw(formula);
  };
  const tabs = names.length < 2 ? [] : [make("div", { class: "tabs", role: "group", "aria-label": say("which") }, ...names.map((name) => {
    const tab = make("button", { type: "button", "aria-label": name, "aria-pressed": String(name === names[0]) }, math("math", [mathOfName(name)]));
    tab.addEventListener("click", () => {
      tab.parentElement.querySelectorAll("button").forEach((one) => one.setAttribute("aria-pressed", String(one === tab)));
      show(name);
    });
    return tab;
  }))];
  const root = document.documentElement.dataset.content_root ?? "", isChinese = language === "zh";
  const link = make("a", { href: `${root}${isChinese ? "../" : ""}derive.html#${box.dataset.layer}`, text: say("deriveIt") });
  box.replaceChildren(...tabs, written, below, make("p", { class: "how", text: say("howLiving") }), own, sum, place, make("p", { class: "how" }, link));
  box.classList.add("alive");
  lightsByPointer(box, () => scene);
  show(names[0]);
}

speak(document.documentElement.lang.startsWith("zh") ? "zh" : "en");
document.querySelectorAll(".living[data-layer]").forEach(bringToLife);
