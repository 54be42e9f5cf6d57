"use strict";
// Pictures from outside: chosen, dropped or pasted files, and the camera.

/** Calls take(files) with the user's files: a list that is never empty. */
function initPictures(take) {
  const given = (files) => {
    const all = [...files]; // The list of an input empties with it.
    if (all.length) take(all);
  };
  byId("file").addEventListener("change", ({ target }) => {
    given(target.files);
    target.value = "";
  });
  addEventListener("dragover", (event) => event.preventDefault());
  addEventListener("drop", (event) => {
    event.preventDefault();
    given(event.dataTransfer.files);
  });
  addEventListener("paste", ({ clipboardData }) => given(clipboardData.files));
  initCamera(given);
}

/** The camera's picture, on request; some browsers do not allow it for a file on the disk. */
function initCamera(given) {
  const finder = byId("finder"), video = finder.querySelector("video");
  const close = () => {
    video.srcObject?.getTracks().forEach((track) => track.stop());
    video.srcObject = null;
    finder.hidden = true;
    byId("camera").focus();
  };
  byId("camera").addEventListener("click", async () => {
    try {
      video.srcObject = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
      finder.hidden = false;
      byId("problem").textContent = "";
      byId("snap").focus();
    } catch { // Refused, no camera, or no such function: the page is neither https nor localhost.
      byId("problem").textContent = say("noCamera");
    }
  });
  byId("snap").addEventListener("click", () => {
    const { videoWidth: width, videoHeight: height } = video;
    if (!width) return; // No picture yet.
    const canvas = element("canvas", { width, height });
    canvas.getContext("2d").drawImage(video, 0, 0);
    canvas.toBlob((blob) => given([blob]));
    close();
  });
  byId("camera-close").addEventListener("click", close);
}
