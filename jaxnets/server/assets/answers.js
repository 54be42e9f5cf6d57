"use strict";
// Shows what the server's models answer, side by side, with buttons for feedback.
//
// The page sends the document the event "drawing": detail.pixels are its bytes, null for no ink. The
// plain page, for a network that the page cannot show, has no paper: it asks about files instead.
(() => {
  const TEXTS = {}; // Filled in from answers.json where the page is built.
  const WAIT = 250; // Milliseconds without a further stroke, after which the models are asked.
  const TOP = 3, MOST_PICTURES = 50, MOST_NAMES = 30;

  const section = byId("answers");
  const user = Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) =>
    byte.toString(16).padStart(2, "0"),
  ).join(""); // For this visit only: nothing is stored.
  // The questions, the newest first: {file, url, answers, problem}; a drawing has no file.
  let asked = [];
  const told = new Map(); // The feedback on each answer: "right" or "wrong".
  let failure = ""; // Of the last feedback.
  let timer = 0;
  let asking = new AbortController();
  let isStale = false; // Whether the answers are those of an earlier drawing.

  const text = (key, values = {}) => TEXTS[language][key].replace(/\{(\w+)\}/g, (_, name) => values[name]);

  /** A message of the server, whose API answers in English, in the page's language where TEXTS has it. */
  function said(message) {
    for (const [key, english] of Object.entries(TEXTS.en)) {
      const escaped = english.replace(/[.*+?^$()|[\]\\]/g, "\\$&");
      const found = message.match(new RegExp(`^${escaped.replace(/\{(\w+)\}/g, "(?<$1>.*)")}$`));
      if (found) return text(key, found.groups);
    }
    return message;
  }

  async function post(path, body, signal) {
    const isJson = !(body instanceof Blob);
    const type = isJson ? "application/json" : "application/octet-stream";
    const reply = await fetch(path, {
      method: "POST",
      headers: { "Content-Type": type, "X-User": user },
      body: isJson ? JSON.stringify(body) : body,
      signal,
    });
    const value = await reply.json();
    if (!reply.ok) throw new Error(value.error);
    return value;
  }

  /** Fills in what the models answer for a file or for pixels. */
  async function ask(one, body, signal) {
    try {
      one.answers = (await post(`compare?top=${TOP}`, body, signal)).answers;
      isStale = false;
    } catch (error) {
      if (signal?.aborted) return;
      one.problem = error.message;
    }
    show();
  }

  /** One file after the other: the first answers come soon. */
  async function askEach(files) {
    byId("problem").textContent = "";
    const given = files.map((file) => ({ file, url: URL.createObjectURL(file), answers: [], problem: "" }));
    asked = [...given, ...asked];
    asked.splice(MOST_PICTURES).forEach(({ url }) => URL.revokeObjectURL(url));
    show();
    for (const one of given) await ask(one, one.file);
  }

  async function tell(answer, word) {
    told.set(answer, word);
    show();
    try {
      await post("feedback", { answer, correct: word === "right" });
      failure = "";
    } catch (error) {
      told.delete(answer);
      failure = error.message;
    }
    show();
  }

  function card({ model, version, arm, pictures: [picture] }, several) {
    const name = several ? arm + text("colon") + model : model, [{ label: best }] = picture.predictions;
    const bars = element("ol", { className: "bars" });
    for (const { label, probability } of picture.predictions) {
      const bar = element("i");
      bar.style.width = `${100 * probability}%`;
      const share = element("span", { text: `${(100 * probability).toFixed(1)} %` });
      bars.append(element("li", { className: label === best ? "best" : "" }, element("b", { text: label, title: label }), element("div", {}, bar), share));
    }
    const buttons = element("p", { className: "model-buttons" }), word = told.get(picture.answer);
    for (const kind of ["right", "wrong"]) {
      const button = element("button", { type: "button", text: text(kind), "aria-label": text(kind) + text("colon") + name, "aria-pressed": word === kind, "data-arm": arm, "data-kind": kind });
      button.disabled = word !== undefined || isStale;
      button.addEventListener("click", () => tell(picture.answer, kind));
      buttons.append(button);
    }
    buttons.append(element("span", { text: word ? text("saved") : "", role: "status" }));
    return element("article", { className: "model-answer" }, element("h3", { text: text("version", { model: name, version }) }),
      element("p", { text: best, className: best.length > 2 ? "model-best long" : "model-best" }), bars, buttons);
  }

  /** A picture and its answers; a drawing is seen above. */
  function row({ file, url, answers, problem }) {
    const cards = element("div", { className: "model-answers" }, ...answers.map((answer) => card(answer, answers.length > 1)));
    if (problem) cards.append(element("p", { text: text("failed") + said(problem), role: "alert", className: "problem" }));
    else if (!answers.length) cards.append(element("p", { text: text("asking"), className: "hint" }));
    if (!file) return cards;
    const caption = element("figcaption", { text: file.name });
    return element("div", { className: "asked" }, element("figure", {}, element("img", { src: url, alt: "" }), caption), cards);
  }

  function show() {
    const parts = [element("h2", { text: text("title") }), ...asked.map(row)];
    if (asked.some(({ answers }) => answers.length)) parts.push(element("p", { text: text("hint"), className: "hint" }));
    if (failure) parts.push(element("p", { text: text("failed") + said(failure), role: "alert" }));
    section.replaceChildren(...parts);
    section.hidden = !asked.length;
    if (byId("private")) byId("private").textContent = text("private"); // Instead of the page's own.
  }

  function drawn({ detail: { pixels } }) {
    clearTimeout(timer);
    asking.abort();
    isStale = true;
    if (!pixels) asked = [];
    show();
    if (!pixels) return;
    timer = setTimeout(async () => {
      asking = new AbortController();
      const one = { answers: [], problem: "" }, { signal } = asking;
      await ask(one, { image: Array.from(pixels) }, signal);
      if (signal.aborted) return;
      asked = [one];
      show();
    }, WAIT);
  }

  function translatePlain() {
    translateFixed();
    document.querySelectorAll("[data-own]").forEach((each) => { each.textContent = text(each.dataset.own); });
    const { model, classNames } = RUN, names = classNames.slice(0, MOST_NAMES).join(text("comma"));
    const more = classNames.length > MOST_NAMES ? " …" : "";
    byId("about").textContent = text("plainAbout", { model, count: count(classNames.length), names: names + more });
    document.title = `${model} – ${text("plainTitle")}`;
    show();
  }

  if (byId("paper")) {
    document.addEventListener("drawing", drawn);
    new MutationObserver(show).observe(document.documentElement, { attributes: true, attributeFilter: ["lang"] });
    show();
  } else {
    initSwitches(translatePlain, () => {});
    initPictures(askEach);
    translatePlain();
  }
})();
