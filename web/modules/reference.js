// The API reference: Swagger UI over openapi.yaml, every call sent as whoever is signed in.

import { address } from "./api.js";
import { element } from "./dom.js";
import { showIdentity } from "./frame.js";
import { authorization } from "./identity.js";

const PROGRAM = "viewer/swagger-ui-bundle.js";
const DESCRIPTION = "openapi.yaml";
/** Milliseconds between two looks whether the viewer has been fetched. */
const PAUSE = 1000;

const place = document.getElementById("viewer");

/** Waits until the local run has fetched the viewer; throws what it says where it cannot. */
async function ready() {
  for (;;) {
    const answer = await fetch(PROGRAM, { method: "HEAD" });
    if (answer.ok) return;
    if (answer.status !== 503) throw new Error((await reason()) ?? `${PROGRAM} is not there.`);
    say("The viewer is being fetched …");
    await new Promise((resolve) => setTimeout(resolve, PAUSE));
  }
}

async function reason() {
  const answer = await fetch(PROGRAM);
  return answer.json().then(
    ({ detail }) => detail,
    () => null,
  );
}

function load() {
  return new Promise((resolve, reject) => {
    const failed = () => reject(new Error("The viewer does not load."));
    document.head.append(element("script", { src: PROGRAM, onload: resolve, onerror: failed }));
  });
}

function say(...words) {
  place.replaceChildren(element("p", { class: "lead" }, words));
}

/** Sends a call to the API that the page belongs to, whatever servers the description names. */
async function send(request) {
  if (request.loadSpec) return request;
  const { pathname, search } = new URL(request.url, location.href);
  request.url = address(pathname + search);
  const bearer = await authorization(request.url);
  if (bearer && !request.headers.Authorization) request.headers.Authorization = bearer;
  return request;
}

/** Puts right what the viewer leaves out for those who hear the page. It draws anew at every step, and so is this. */
function mend() {
  const unnamed = place.querySelectorAll("select:not([aria-label]), textarea:not([aria-label]), input:not([aria-label])");
  for (const field of unnamed) {
    const name = field.closest("tr")?.querySelector(".parameter__name")?.textContent;
    field.setAttribute("aria-label", name ?? field.placeholder ?? "");
    if (!field.getAttribute("aria-label")) field.setAttribute("aria-label", "Choice or body of the request");
  }
  for (const example of place.querySelectorAll("pre:not([tabindex])")) example.setAttribute("tabindex", "0");
  const about = place.querySelector(".information-container:not([role])");
  about?.setAttribute("role", "region");
  about?.setAttribute("aria-label", "About the API");
  // Its headings skip the second level.
  for (const [headings, level] of [["h3.opblock-tag", "2"], ["h4", "3"], ["h5", "4"]]) {
    for (const heading of place.querySelectorAll(`${headings}:not([aria-level])`)) heading.setAttribute("aria-level", level);
  }
}

/** The viewer has a dark side, too. */
function followScheme() {
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const follow = () => document.documentElement.classList.toggle("dark-mode", dark.matches);
  dark.addEventListener("change", follow);
  follow();
}

showIdentity();
followScheme();
new MutationObserver(mend).observe(place, { childList: true, subtree: true });
try {
  await ready();
  await load();
  place.replaceChildren();
  globalThis.SwaggerUIBundle({
    url: DESCRIPTION,
    domNode: place,
    requestInterceptor: send,
    // Nobody else hears of what is read or tried here.
    validatorUrl: "none",
    defaultModelsExpandDepth: 0,
    displayRequestDuration: true,
    tryItOutEnabled: true,
  });
} catch (error) {
  const description = element("a", { href: DESCRIPTION }, DESCRIPTION);
  say("The viewer cannot be shown. ", error.message, " The description itself is in ", description, ".");
}
