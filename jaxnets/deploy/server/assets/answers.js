"use strict";
// Shows what the server's models answer for the drawing, side by side, with buttons for feedback.
// The page sends the document the event "drawing": detail.pixels are its bytes, null for no ink.
(() => {
  const TEXTS = {}; // Filled in from answers.json where the page is built.
  const WAIT = 250; // Milliseconds without a further stroke, after which the models are asked.
  const TOP = 3;

  const section = document.getElementById("answers");
  const user = Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) =>
    byte.toString(16).padStart(2, "0"),
  ).join(""); // Of this visit only: nothing is stored.
  let answers = [];
  let said = new Map(); // The feedback of each shown answer: "right" or "wrong".
  let problem = "";
  let timer = 0;
  let asking = new AbortController();
  let isStale = false; // Whether the answers are those of an earlier drawing.

  const texts = () => TEXTS[document.documentElement.lang.startsWith("zh") ? "zh" : "en"];

  function element(tag, text, attributes = {}) {
    const made = document.createElement(tag);
    made.textContent = text; // Names may hold markup; here they are text.
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    return made;
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

  async function ask(body) {
    asking.abort();
    asking = new AbortController();
    const { signal } = asking;
    try {
      const found = await post(`compare?top=${TOP}`, body, signal);
      answers = found.answers;
      said = new Map();
      isStale = false;
      problem = "";
    } catch (error) {
      if (signal.aborted) return;
      answers = [];
      problem = error.message;
    }
    show();
  }

  async function tell(answer, word) {
    said.set(answer, word);
    show();
    try {
      await post("feedback", { answer, correct: word === "right" });
      problem = "";
    } catch (error) {
      said.delete(answer);
      problem = error.message;
    }
    show();
  }

  function card({ model, version, arm, pictures: [picture] }) {
    const made = element("article", "", { class: "model-answer" });
    const name = answers.length > 1 ? `${arm}: ${model}` : model;
    made.append(element("h3", texts().version.replace(/\{(\w+)\}/g, (_, key) => ({ model: name, version })[key])));
    const best = element("p", picture.predictions[0].label, { class: "model-best" });
    const list = element("ol", "", { class: "model-bars" });
    for (const { label, probability } of picture.predictions) {
      const row = element("li", "");
      row.append(element("span", label, { class: "model-label" }));
      row.append(element("meter", "", { value: probability, "aria-hidden": "true" }));
      const share = `${(100 * probability).toFixed(1)} %`;
      row.append(element("span", share, { class: "model-share" }));
      list.append(row);
    }
    made.append(best, list);
    const buttons = element("p", "", { class: "model-buttons" });
    const word = said.get(picture.answer);
    for (const kind of ["right", "wrong"]) {
      const button = element("button", texts()[kind], { type: "button" });
      button.setAttribute("aria-label", `${texts()[kind]}: ${name}`);
      button.setAttribute("aria-pressed", String(word === kind));
      button.dataset.arm = arm;
      button.dataset.kind = kind;
      button.disabled = word !== undefined || isStale;
      button.addEventListener("click", () => tell(picture.answer, kind));
      buttons.append(button);
    }
    buttons.append(element("span", word ? texts().saved : "", { role: "status" }));
    made.append(buttons);
    return made;
  }

  function show() {
    const cards = element("div", "", { class: "model-answers" });
    cards.append(...answers.map(card));
    const parts = [element("h2", texts().title), cards];
    if (answers.length) parts.push(element("p", texts().hint, { class: "hint" }));
    if (problem) parts.push(element("p", texts().failed + problem, { role: "alert" }));
    section.replaceChildren(...parts);
    section.hidden = !answers.length && !problem;
  }

  function drawn({ detail: { pixels } }) {
    clearTimeout(timer);
    asking.abort();
    isStale = true;
    if (pixels) timer = setTimeout(() => ask({ image: Array.from(pixels) }), WAIT);
    else answers = [];
    show();
  }

  document.addEventListener("drawing", drawn);
  const chooser = document.getElementById("picture"); // Of the plain page.
  if (chooser) chooser.addEventListener("change", () => chooser.files[0] && ask(chooser.files[0]));
  new MutationObserver(show).observe(document.documentElement, {
    attributes: true,
    attributeFilter: ["lang"],
  });
})();
