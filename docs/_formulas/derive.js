"use strict";
// The page derive.html: choose a layer, type the formula of a gradient, see what is wrong, open an entry.

const STORE = "jaxnets-derive", PAUSE = 500; // Milliseconds after the last key until the judge speaks.
const byId = (id) => document.getElementById(id);

const page = {
  lesson: LESSONS[0], layer: null, scene: null, gradient: "",
  done: {}, // By "layer/gradient" the formula that was right.
  seen: "", // The key of the gradient whose formula was shown: it gets no tick.
  isRight: false,
  waiting: 0, // The timer of the judge.
};

// ---- Progress ----

function load() {
  try {
    const { done = {}, layer, language: chosen, theme } = JSON.parse(localStorage.getItem(STORE) ?? "{}");
    page.done = done;
    page.lesson = lessonOfAddress() ?? LESSONS.find((one) => one.layer === layer) ?? LESSONS[0];
    if (chosen) speak(chosen);
    if (theme) document.documentElement.dataset.theme = theme;
  } catch { // Without a store the page forgets.
    page.lesson = lessonOfAddress() ?? LESSONS[0];
  }
}

/** The lesson that a link names: derive.html#softmax. */
function lessonOfAddress() {
  return LESSONS.find(({ layer }) => `#${layer}` === location.hash);
}

function save() {
  try {
    const { theme } = document.documentElement.dataset;
    localStorage.setItem(STORE, JSON.stringify({ done: page.done, layer: page.lesson.layer, language, theme }));
  } catch { /* As above. */ }
}

const keyOf = (lesson, gradient) => `${lesson.layer}/${gradient}`;
const isDone = (lesson, gradient) => has(page.done, keyOf(lesson, gradient));
const inLanguage = (pair) => pair[language === "zh" ? 1 : 0];

/** The gradients of a lesson, in the order in which they are derived. */
function gradientsOf({ layer }) {
  return LAYERS[layer].backward.map((text) => text.split(" ")[0].split("_")[0]);
}

// ---- The lesson ----

function renderLessons() {
  const groups = [];
  for (const lesson of LESSONS) {
    const name = inLanguage(lesson.group);
    if (groups.at(-1)?.label !== name) groups.push(make("optgroup", { label: name }));
    const ticked = gradientsOf(lesson).every((one) => isDone(lesson, one)) ? "✓ " : "";
    const option = make("option", { value: lesson.layer, text: ticked + inLanguage(lesson.name) });
    option.selected = lesson === page.lesson;
    groups.at(-1).append(option);
  }
  byId("layer").replaceChildren(...groups);
  const all = LESSONS.flatMap((lesson) => gradientsOf(lesson).map((one) => isDone(lesson, one)));
  byId("progress").textContent = say("progress", { done: all.filter(Boolean).length, all: all.length });
}

function renderTabs() {
  byId("gradients").replaceChildren(...gradientsOf(page.lesson).map((name) => {
    const ticked = isDone(page.lesson, name), tab = make("button", { type: "button", "aria-pressed": String(name === page.gradient) }, math("math", [mathOfName(name)]));
    if (ticked) tab.append(" ✓");
    tab.setAttribute("aria-label", ticked ? say("tabDone", { name }) : name);
    tab.addEventListener("click", () => openGradient(name, true));
    return tab;
  }));
}

/** What an array is, in words. */
function wordsOf(name) {
  const { layer } = page, above = `d${layer.out}`;
  if (name === above && has(layer.drawn, name)) return say("arrayAbove");
  if (name === layer.out && !has(TEXTS, `array_${name}`)) return say("arrayOut");
  if (name === "z" && !has(layer.drawn, name)) return "";
  if (name === "y" && has(layer.drawn, name)) return say("arrayLabels");
  return has(TEXTS, `array_${name}`) ? say(`array_${name}`) : "";
}

function openLesson(lesson) {
  Object.assign(page, { lesson, layer: new Layer(LAYERS[lesson.layer]) });
  const sizes = { ...page.layer.sizes, ...lesson.sizes };
  const places = { root: byId("lesson"), own: byId("own"), place: byId("arrays"), sum: byId("sum") };
  page.scene = new Scene({ ...places, layer: page.layer, sizes, words: wordsOf });
  byId("forward").replaceChildren(...page.layer.steps.map((step) => make("div", {}, mathOf(step))));
  byId("title").textContent = inLanguage(lesson.name);
  byId("scalars").textContent = Object.entries(page.layer.scalars).map(([name, x]) => `${name} = ${x}`).join(", ");
  byId("worked").hidden = !lesson.worked;
  if (lesson.worked) {
    byId("worked-text").textContent = inLanguage(lesson.worked.text);
    byId("worked-math").replaceChildren(mathOf(page.layer.gradients[lesson.worked.gradient]));
  }
  const names = gradientsOf(lesson), first = names.find((one) => !isDone(lesson, one) && one !== lesson.worked?.gradient);
  openGradient(first ?? names[0]);
}

/** Which index to think of, never the answer, from the exercise to derive the same. */
function hintOf() {
  return HINTS[page.lesson.layer]?.[page.gradient];
}

/** The name and indices of a gradient, as they are typed. */
function leftOf(name) {
  return page.layer.gradients[name].text.split("=")[0].trim();
}

function openGradient(name, focus = false) {
  Object.assign(page, { gradient: name, seen: "" });
  const input = byId("formula");
  input.value = page.done[keyOf(page.lesson, name)] ?? `${leftOf(name)} = `;
  page.scene.chosen = null;
  byId("ask").textContent = say("ask", { name });
  byId("hinted").textContent = "";
  byId("hint").hidden = !hintOf();
  renderLessons();
  renderTabs();
  renderKeys();
  page.isRight = false;
  typed();
  judge(false);
  if (focus) {
    input.focus();
    input.setSelectionRange(input.value.length, input.value.length);
  }
  save();
}

// ---- Typing ----

/** Buttons for what a keyboard lacks, and for the names that the formula may use. */
function renderKeys() {
  const { ranks, scalars } = page.layer.namesBefore(page.gradient);
  const names = Object.keys(ranks).map((name) => (ranks[name] ? `${name}_` : name));
  const said = page.layer.steps.flatMap(({ value }) => walk(value)).filter(({ kind }) => kind === "scalar").map(({ name }) => name);
  const used = [...scalars].filter((name) => said.includes(name));
  const functions = page.layer.steps.flatMap(({ text }) => text.match(/σ|tanh|exp|log|√|\[/g) ?? []);
  const all = Object.values(page.layer.letters), hasTwins = new Set(all).size < all.length; // Two letters of one axis.
  const squares = page.layer.steps.some(({ text }) => /²|tanh/.test(text));
  const more = [...new Set([...(hasTwins ? ["δ_"] : []), ...(squares ? ["²"] : []), ...functions.map((one) => (one === "[" ? "[ > 0]" : one === "√" ? "√(" : `${one}(`))])];
  const key = (text, says = text) => {
    const made = make("button", { type: "button", class: "key", text, "aria-label": says });
    made.addEventListener("click", () => insert(text));
    return made;
  };
  byId("keys").replaceChildren(key("Σ_", say("keySum")), ...names.map((name) => key(name)), ...used.map((name) => key(name)),
    ...more.map((one) => key(one)), key("("), key(")"));
}

function insert(text) {
  const input = byId("formula"), { selectionStart: from, selectionEnd: to, value } = input;
  const before = value.slice(0, from), gap = /[\p{L}\p{N}\u0302)\]]$/u.test(before) && /^[\p{L}Σ√[(]/u.test(text) && !text.startsWith("(") ? " " : "";
  input.setRangeText(gap + text, from, to, "end");
  input.focus();
  input.dispatchEvent(new Event("input"));
}

/** The index that was typed last before the cursor, or null. */
function letterAtCursor() {
  const input = byId("formula"), before = input.value.slice(0, input.selectionStart);
  return before.match(/(?:_\{?|\[|sum\()[\p{L}\p{N}, +−-]*?(\p{Ll})$/u)?.[1] ?? null;
}

/** The whole formula: who types only the right side means the array that is asked for. */
function formulaTyped() {
  const text = byId("formula").value.trim();
  let depth = 0;
  for (const sign of text) {
    depth += "([{".includes(sign) - ")]}".includes(sign);
    if (sign === "=" && depth === 0) return text;
  }
  return text && `${leftOf(page.gradient)} = ${text}`;
}

/** Draws what is typed, with the arrays. */
function typed() {
  const { layer, gradient, scene } = page, text = formulaTyped();
  let formula = null;
  try {
    formula = parse(text, layer.namesBefore(gradient));
  } catch (error) {
    if (!(error instanceof FormulaError)) throw error;
  }
  const fits = formula && formula.name === gradient && formula.letters.length === layer.axes[gradient].length && typeof sizesOf(layer, formula) === "object";
  const right = layer.gradients[gradient], shown = fits ? formula : { name: gradient, letters: right.letters, value: { kind: "number", value: 0 } };
  byId("drawn").replaceChildren(formula ? mathOf(formula) : mathOfText(text));
  const letters = Object.fromEntries(Object.entries(fits ? sizesOf(layer, formula) : layer.letters).map(([letter, size]) => [letter, scene.sizes[size]]));
  byId("chips").replaceChildren(...(fits ? [chipsOf(formula, scene, letters)] : []));
  const earlier = walk(right.value).filter(({ kind, name }) => kind === "entry" && has(layer.gradients, name)).map(({ name }) => name);
  scene.draw(shown, { known: page.isRight && fits, shown: [...Object.keys(layer.drawn), ...layer.steps.map(({ name }) => name), ...earlier] });
  scene.light(letterAtCursor());
}

// ---- The judge ----

function wait() {
  clearTimeout(page.waiting);
  page.waiting = setTimeout(() => judge(false), PAUSE);
}

/** Says what is wrong; what is not finished yet is only said when it is `asked`. */
function judge(asked) {
  clearTimeout(page.waiting);
  const { layer, gradient, lesson } = page, text = formulaTyped(), verdict = byId("verdict");
  const begun = text && text.replace(/\s/g, "") !== `${leftOf(gradient)}=`.replace(/\s/g, "");
  const says = begun || asked ? firstWrong(layer, gradient, text) : "";
  const right = begun && says === "";
  page.isRight = right;
  verdict.textContent = right ? say("right", { name: gradient }) : says;
  verdict.className = right ? "good" : asked ? "bad" : "soft";
  if (right && page.seen !== keyOf(lesson, gradient) && page.done[keyOf(lesson, gradient)] !== text) {
    page.done[keyOf(lesson, gradient)] = text;
    save();
    renderLessons();
    renderTabs();
  }
  renderAfter(right);
  byId("answer").hidden = right;
  byId("hint").hidden = right || !hintOf();
  if (right) typedRight();
}

/** The numbers of the gradient are known now. */
function typedRight() {
  const { scene, layer, gradient } = page, lit = scene.lit;
  const formula = parse(formulaTyped(), layer.namesBefore(gradient));
  scene.draw(formula, { known: true, shown: [...scene.views.keys()] });
  scene.light(lit);
}

/** What follows a right formula: its line of NumPy, the exercise, and the next one. */
function renderAfter(right) {
  byId("after").hidden = !right;
  if (!right) return;
  const { layer, gradient, lesson } = page, formula = parse(formulaTyped(), layer.namesBefore(gradient));
  const line = numpyLine(formula, sizesOf(layer, formula), layer);
  byId("numpy-line").hidden = !isShort(line);
  byId("numpy").replaceChildren(codeWithLetters(line));
  byId("exercise-line").hidden = !lesson.exercise;
  byId("exercise").textContent = `jaxnets exercise new ${lesson.exercise}`;
  const names = gradientsOf(lesson), left = names.find((one) => one !== gradient && !isDone(lesson, one));
  const next = left ? null : LESSONS[LESSONS.indexOf(lesson) + 1];
  const button = byId("next");
  button.hidden = !left && !next;
  button.textContent = left ? say("nextGradient", { name: left }) : next ? say("nextLayer", { name: inLanguage(next.name) }) : "";
  button.onclick = () => {
    if (left) openGradient(left, true);
    else {
      openLesson(next);
      byId("formula").focus();
    }
  };
  page.scene.colour(byId("after"));
}

// ---- The fixed texts, and the start ----

function isDark() {
  const chosen = document.documentElement.dataset.theme;
  return chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
}

function translate() {
  document.documentElement.lang = language === "zh" ? "zh-Hans" : "en";
  document.title = say("title");
  document.querySelectorAll("[data-text]").forEach((each) => { each.textContent = say(each.dataset.text); });
  document.querySelectorAll("[data-label]").forEach((each) => each.setAttribute("aria-label", say(each.dataset.label)));
  byId("language").lang = language === "zh" ? "en" : "zh-Hans";
  byId("theme").setAttribute("aria-label", say(isDark() ? "toLight" : "toDark"));
}

function start() {
  speak(navigator.language?.startsWith("zh") ? "zh" : "en");
  load();
  translate();
  openLesson(page.lesson);
  const input = byId("formula");
  input.addEventListener("input", () => {
    page.isRight = false;
    typed();
    wait();
  });
  input.addEventListener("focus", () => { // With the Tab key a browser selects all.
    if (/=\s*$/.test(input.value)) input.setSelectionRange(input.value.length, input.value.length);
  });
  document.addEventListener("selectionchange", () => {
    if (document.activeElement === input) page.scene.light(letterAtCursor());
  });
  input.addEventListener("keydown", (event) => { 
    if (event.key !== "Enter") return;
    if (page.isRight && !byId("next").hidden) byId("next").click();
    else judge(true);
  });
  byId("check").addEventListener("click", () => judge(true));
  byId("hint").addEventListener("click", () => { byId("hinted").textContent = inLanguage(hintOf()); });
  byId("answer").addEventListener("click", () => {
    input.value = page.layer.gradients[page.gradient].text;
    page.seen = keyOf(page.lesson, page.gradient);
    typed();
    judge(true);
  });
  byId("layer").addEventListener("change", () => openLesson(LESSONS.find(({ layer }) => layer === byId("layer").value)));
  addEventListener("hashchange", () => openLesson(lessonOfAddress() ?? page.lesson));
  byId("language").addEventListener("click", () => {
    const text = input.value;
    speak(language === "zh" ? "en" : "zh");
    translate();
    const { gradient } = page;
    openLesson(page.lesson);
    openGradient(gradient);
    input.value = text;
    typed();
    judge(false);
  });
  byId("theme").addEventListener("click", () => {
    document.documentElement.dataset.theme = isDark() ? "light" : "dark";
    translate();
    save();
  });
  byId("forget").addEventListener("click", () => {
    page.done = {};
    save();
    openLesson(page.lesson);
  });
  lightsByPointer(byId("lesson"), () => page.scene);
}

start();
