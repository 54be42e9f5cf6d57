"use strict";
// The run's own pictures that the page holds: examples to look at, and to train with.

let ownPictures = null; // Their bytes, one picture after the other, once they are unpacked.

/** The bytes of a text in base64, of gzip. */
async function unpacked(text) {
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

async function unpackPictures() {
  ownPictures ??= await unpacked(PRACTICE.images);
}

/** Puts one of them on the paper. */
async function showOwn(index) {
  await unpackPictures();
  const size = SIDE * SIDE;
  layPicture(ownPictures.slice(index * size, (index + 1) * size), PRACTICE.labels[index]);
  seeDrawing(performance.now(), true);
}
