"use strict";
// Puts what is new in the place of what is shown, and leaves folded what is folded.
(() => {
  const seconds = 5;
  const state = document.getElementById("live");
  const pause = document.createElement("button");
  let paused = false;
  pause.type = "button";
  pause.addEventListener("click", () => {
    paused = !paused;
    tell();
  });
  const words = document.createElement("span");
  words.setAttribute("role", "status");
  state.append(words, " ", pause);
  const tell = (trouble) => {
    words.textContent = trouble || (paused ? "Paused." : `New each ${seconds} s.`);
    words.className = trouble ? "trouble" : "";
    pause.textContent = paused ? "Go on" : "Pause";
  };
  const here = new URL(location.href);
  here.username = here.password = "";
  const refresh = async () => {
    const answer = await fetch(here, { cache: "no-store", signal: AbortSignal.timeout(10000) });
    if (!answer.ok) throw new Error(`it answered ${answer.status}`);
    const text = await answer.text();
    // Somebody copies something.
    if (String(getSelection())) return;
    const shown = document.querySelector("main");
    const fresh = new DOMParser().parseFromString(text, "text/html").querySelector("main");
    const folds = new Map([...shown.querySelectorAll("details")].map((fold) => [fold.dataset.fold, fold.open]));
    const focused = document.activeElement.closest("main details")?.dataset.fold;
    let focus;
    for (const fold of fresh.querySelectorAll("details")) {
      fold.open = folds.get(fold.dataset.fold) ?? fold.open;
      if (fold.dataset.fold === focused) focus = fold.querySelector("summary");
    }
    shown.replaceWith(document.adoptNode(fresh));
    focus?.focus({ preventScroll: true });
  };
  const turn = async () => {
    if (!paused && !document.hidden) {
      try {
        await refresh();
        tell();
      } catch (error) {
        tell(`This is old: the registry could not be asked (${error.message}).`);
      }
    }
    setTimeout(turn, seconds * 1000);
  };
  tell();
  setTimeout(turn, seconds * 1000);
})();
