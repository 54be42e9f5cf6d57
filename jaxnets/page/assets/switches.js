"use strict";
// The two switches, language and theme, and the fixed texts.

const MOON = "M20 14.5A8.5 8.5 0 0 1 9.5 4 8.5 8.5 0 1 0 20 14.5z";
const RAYS = "M12 1.5v3M12 19.5v3M1.5 12h3M19.5 12h3M4.6 4.6l2.1 2.1M17.3 17.3l2.1 2.1M4.6 19.4l2.1-2.1M17.3 6.7l2.1-2.1";

/** Whether the page is dark: like the system, until the button is pressed. */
function isDark() {
  const chosen = document.documentElement.dataset.theme;
  return chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
}

/** The button shows, and says, the other theme. */
function renderTheme() {
  const button = byId("theme"), dark = isDark(), text = say(dark ? "toLight" : "toDark");
  const svg = button.firstElementChild, make = drawer(svg);
  svg.replaceChildren();
  if (dark) make("circle", { cx: 12, cy: 12, r: 4.5, class: "sun" });
  make("path", { d: dark ? RAYS : MOON, class: dark ? "sun" : "moon" });
  button.setAttribute("aria-label", text);
  button.title = text;
}

/** Puts every fixed text into the language of the page. */
function translateFixed() {
  document.documentElement.lang = language === "zh" ? "zh-Hans" : "en";
  document.querySelectorAll("[data-text]").forEach((each) => { each.textContent = say(each.dataset.text); });
  document.querySelectorAll("[data-label]").forEach((each) => each.setAttribute("aria-label", say(each.dataset.label)));
  byId("language").textContent = say("language");
  byId("language").lang = language === "zh" ? "en" : "zh-Hans";
  renderTheme();
}

/** Starts both; `translate` and `recolour` are called when one is pressed, or when the system's theme changes. */
function initSwitches(translate, recolour) {
  byId("language").addEventListener("click", () => {
    language = language === "zh" ? "en" : "zh";
    translate();
  });
  const change = () => {
    renderTheme();
    recolour();
  };
  byId("theme").addEventListener("click", () => {
    document.documentElement.dataset.theme = isDark() ? "light" : "dark";
    change();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", change);
}
