"use strict";
// The page's texts: texts.json, and the same in Chinese. {name} is replaced by a value.

const TEXTS = {}; // Filled in where the page is built.

let language = globalThis.document?.documentElement.dataset.language; // From jaxnets page --language.
language ??= navigator.language?.startsWith("zh") ? "zh" : "en";

const onPictures = typeof RUN === "undefined" || !RUN.asDigits; // Not on characters: some texts are others.

/** A text in the language of the page, with its values. */
function say(key, values = {}) {
  const texts = TEXTS[language], text = (onPictures && texts[`${key}_picture`]) || texts[key];
  return text.replace(/\{(\w+)\}/g, (_, name) => values[name]);
}

/** A number with four digits, or more before the point: 0.1235, 12.35, 18063, 1.235·10⁻⁷. */
function digits(value, figures = 4) {
  if (value === 0 || !Number.isFinite(value)) return String(value).replace("-", "−");
  const [mantissa, exponent] = value.toExponential(figures - 1).split("e");
  if (exponent >= 5 || exponent < -4) {
    const raised = String(Number(exponent)).replace(/./g, (c) => (c === "-" ? "⁻" : "⁰¹²³⁴⁵⁶⁷⁸⁹"[c]));
    return `${mantissa}·10${raised}`.replace("-", "−");
  }
  return value.toFixed(Math.max(0, figures - 1 - exponent)).replace("-", "−");
}

/** A probability: near 1, with enough digits to show that it is less. */
function share(p) {
  if (p <= 0.999 || p >= 1) return digits(p);
  return p.toFixed(Math.min(12, Math.ceil(-Math.log10(1 - p)) + 1));
}

/** A whole number with its thousands marked. */
function count(value) {
  return value.toLocaleString("en");
}

/** An element with a text and children; content from a run is only ever text. */
function element(tag, { text, className, ...attributes } = {}, ...children) {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

/** Adds elements to a picture: make("line", {x1: 0, ...}). */
function drawer(svg) {
  return (tag, attributes, text) => {
    const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    if (text !== undefined) made.textContent = text;
    svg.append(made);
  };
}

function byId(id) {
  return document.getElementById(id);
}
