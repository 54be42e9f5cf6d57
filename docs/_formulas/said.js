"use strict";
// The texts of the page and of the chapters, in English and Chinese.

const TEXTS = {}; // Both filled in by docs/_ext/derive.py.
const SENTENCES = {}; // The judge's in Chinese, by the English ones.

let language = "en";

/** A text in the language of the page; {name} is replaced by a value. */
function say(key, values = {}) {
  return TEXTS[key][language === "zh" ? 1 : 0].replace(/\{(\w+)\}/g, (_all, name) => values[name]);
}

function speak(chosen) {
  language = chosen;
  TRANSLATED = language === "zh" ? SENTENCES : {};
}
