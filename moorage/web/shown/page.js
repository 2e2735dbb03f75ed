"use strict";
// The page is whole without this: it only brings in sections that changed, and copies cures.
const state = document.getElementById("state");

function withButtons(root) {
  for (const cure of root.querySelectorAll("code.cure")) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = state.dataset.copy;
    button.setAttribute("aria-label", `${state.dataset.copy}: ${cure.textContent}`);
    button.addEventListener("click", async () => {
      await navigator.clipboard.writeText(cure.textContent);
      button.textContent = state.dataset.copied;
    });
    cure.after(button);
  }
}

async function renew(name) {
  const answer = await fetch(`/section/${name}`);
  const old = document.getElementById(name);
  if (!answer.ok || !old) return;
  const parsed = new DOMParser().parseFromString(await answer.text(), "text/html");
  const made = document.adoptNode(parsed.body.firstElementChild);
  const targets = "a, button, input, summary, [tabindex]";
  const held = [...old.querySelectorAll(targets)].indexOf(document.activeElement);
  const left = old.querySelector(".scroll")?.scrollLeft ?? 0;
  const opened = [...old.querySelectorAll("details")].map((one) => one.open);
  made.querySelectorAll("details").forEach((one, place) => { one.open = opened[place] ?? false; });
  withButtons(made);
  old.replaceWith(made);
  const scroll = made.querySelector(".scroll");
  if (scroll) scroll.scrollLeft = left;
  if (held >= 0) made.querySelectorAll(targets)[held]?.focus();
}

withButtons(document);
const events = new EventSource("/events");
let version = document.body.dataset.version;
// What changed between the page and its events, or while the connection was lost.
events.addEventListener("hello", (event) => {
  if (event.data !== version) document.querySelectorAll("main > section").forEach((one) => renew(one.id));
  version = event.data;
});
events.addEventListener("open", () => { state.textContent = state.dataset.live; });
events.addEventListener("error", () => { state.textContent = state.dataset.lost; });
events.addEventListener("message", (event) => JSON.parse(event.data).forEach(renew));
