// The console for people: which view an address means, and what happens when one follows another.

import { catalogue } from "./catalogue.js";
import { coursePage } from "./course.js";
import { element } from "./dom.js";
import { showIdentity } from "./frame.js";
import { current, onChange } from "./identity.js";
import { learningPage, queuePage } from "./learning.js";
import { chooseButton, failure, heading, whyUnknown } from "./parts.js";
import { countLeft, events, isRefused, onQueue, start } from "./queue.js";
import { sectionPage } from "./section.js";
import { taughtCoursePage, teachingPage } from "./teaching.js";

const VIEWS = [
  { path: /^\/courses$/, view: catalogue },
  { path: /^\/courses\/([^/]+)$/, view: coursePage },
  { path: /^\/sections\/([^/]+)$/, view: sectionPage, personal: true },
  { path: /^\/learning$/, view: learningPage, personal: true },
  { path: /^\/queue$/, view: queuePage },
  { path: /^\/teaching$/, view: teachingPage, personal: true },
  { path: /^\/teaching\/([^/]+)$/, view: taughtCoursePage, personal: true },
];

const main = document.getElementById("main");
let visit = new AbortController();

/** Shows the view that the address means. The one before stays until the new one is there, so that nothing jumps. */
async function show({ focus }) {
  visit.abort();
  visit = new AbortController();
  const { signal } = visit;
  const [path, search] = (location.hash.slice(1) || "/courses").split("?");
  markPlace(path);
  main.setAttribute("aria-busy", "true");
  let shown;
  try {
    shown = await open(path, new URLSearchParams(search), signal);
  } catch (error) {
    if (signal.aborted) return;
    shown = { title: "Not shown", nodes: [heading("This could not be shown"), failure(error, () => show({ focus: true }))] };
  }
  if (signal.aborted) return;
  main.removeAttribute("aria-busy");
  // Whoever stood in the view before stands in the new one, and not before the whole page.
  const inside = main.contains(document.activeElement);
  main.replaceChildren(...shown.nodes);
  document.title = `${shown.title} · Lectern`;
  if (focus) scrollTo(0, 0);
  if (focus || inside) main.querySelector("h1").focus({ preventScroll: true });
}

async function open(path, parameters, signal) {
  for (const { path: pattern, view, personal } of VIEWS) {
    const found = pattern.exec(path);
    if (!found) continue;
    if (personal && current() === null) {
      return { title: "Who are you?", nodes: [heading("Who are you?"), element("p", {}, whyUnknown()), chooseButton()] };
    }
    // As in the address: a path of the API takes it as it stands.
    return view({ id: found[1], parameters, signal });
  }
  return { title: "Not found", nodes: [heading("There is no such page"), element("p", {}, element("a", { href: "#/courses" }, "To the catalogue"))] };
}

/** Tells which part of the console one is in. */
function markPlace(path) {
  // A section is in a course, and a course in the catalogue.
  const here = path.split("/")[1].replace("sections", "courses");
  for (const link of document.querySelectorAll("nav.main a")) {
    if (link.hash.split("/")[1] === here) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
}

/** Tells, in the footer, whether all that was done has arrived. */
function showQueue() {
  const place = document.getElementById("queue");
  const show = () => {
    const states = events().map(({ state }) => state);
    const number = (state) => states.filter((other) => other === state).length;
    const left = countLeft();
    const parts = [
      navigator.onLine ? null : "You are offline",
      isRefused() ? "Your token was refused" : null,
      left > 0 ? `${left} kept on this device until the learner signs in` : null,
      number("waiting") > 0 ? `${number("waiting")} to be sent` : null,
      number("parked") > 0 ? `${number("parked")} kept, not counted yet` : null,
      number("rejected") > 0 ? `${number("rejected")} not recorded` : null,
    ].filter(Boolean);
    place.textContent = parts.length > 0 ? parts.join(" · ") : "Everything has arrived";
    place.dataset.state = parts.length > 0 ? "open" : "done";
  };
  onQueue(show);
  addEventListener("online", show);
  addEventListener("offline", show);
  show();
}

showIdentity();
showQueue();
start();
addEventListener("hashchange", () => show({ focus: true }));
onChange(() => show({ focus: false }));
document.querySelector("a.skip").addEventListener("click", (event) => {
  // The address after # is the view's.
  event.preventDefault();
  main.focus();
});
await show({ focus: false });
