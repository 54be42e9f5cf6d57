"use strict";
// The contents: a bar that stays in sight, with a link to each part of the page and to each layer.

let contentsLinks = new Map(); // The target of a link → the link.
const inSight = new Set();

/** The parts in their order: [element, text]. */
function partsOfPage() {
  const part = (id, key) => [byId(id), say(key)];
  const layers = cards.map(({ element: card, n }) => [card, layerTitle(n).split(/[:,：，]/)[0]]);
  const all = [part("draw", "indexDraw"), part("truth", "indexTruth"), ...layers, part("learn", "indexLearn"), part("train", "indexTrain")];
  return all.filter(([target]) => !target.hidden);
}

function renderContents() {
  contentsLinks = new Map(partsOfPage().map(([target, text]) => [target, element("a", { href: `#${target.id}`, text })]));
  byId("index").firstElementChild.replaceChildren(...[...contentsLinks.values()].map((link) => element("li", {}, link)));
  markInSight();
}

/** Marks the first part that is in sight, and keeps its link in the bar's middle. */
function markInSight() {
  const target = [...contentsLinks.keys()].find((each) => inSight.has(each));
  for (const [each, link] of contentsLinks) {
    if (each !== target) link.removeAttribute("aria-current");
    else if (!link.hasAttribute("aria-current")) {
      link.setAttribute("aria-current", "true");
      const bar = byId("index"), { left, width } = link.getBoundingClientRect();
      bar.scrollLeft += left + width / 2 - bar.getBoundingClientRect().left - bar.clientWidth / 2;
    }
  }
}

function initContents() {
  // A part counts from the bar down to the middle of the window.
  const observer = new IntersectionObserver((entries) => {
    for (const { target, isIntersecting } of entries) inSight[isIntersecting ? "add" : "delete"](target);
    markInSight();
  }, { rootMargin: "-70px 0px -50% 0px" });
  partsOfPage().forEach(([target]) => observer.observe(target));
}
