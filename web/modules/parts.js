// Pieces that several views show.

import { announce, drawing, element, foreign } from "./dom.js";
import { duration, percent, plural } from "./format.js";
import { Problem, Unreachable } from "./api.js";
import { choose } from "./frame.js";
import { current, hasRunOut } from "./identity.js";

const WIDTH = 1000;

/** A bar of progress. `update` moves it. */
export function progressBar(label) {
  const done = drawing("rect", { class: "done", height: 10, width: 0 });
  const waiting = drawing("rect", { class: "waiting", height: 10, width: 0 });
  const words = element("p", { class: "bar-words" });
  const bar = element(
    "div",
    { class: "progress", role: "progressbar", "aria-label": label, "aria-valuemin": "0", "aria-valuemax": "100" },
    drawing("svg", { viewBox: `0 0 ${WIDTH} 10`, preserveAspectRatio: "none", "aria-hidden": "true" }, waiting, done),
  );
  /** Of `total` sections `completed` are recorded, and `sent` more are on their way. */
  const update = ({ completedSections: completed, totalSections: total, completionPercentage }, sent = 0) => {
    const share = (sections) => (total === 0 ? 0 : (Math.min(sections, total) / total) * WIDTH);
    done.setAttribute("width", share(completed));
    waiting.setAttribute("width", share(completed + sent));
    const text = `${percent(completionPercentage)}: ${completed} of ${plural(total, "section")}`;
    words.textContent = sent > 0 ? `${text}, ${sent} not recorded yet` : text;
    bar.setAttribute("aria-valuenow", completionPercentage ?? 0);
    bar.setAttribute("aria-valuetext", words.textContent);
    return words.textContent;
  };
  return { node: element("div", { class: "bar" }, bar, words), update };
}

/** The head of a view. It takes the focus when the view opens. */
export const heading = (text) => foreign("h1", text, { tabindex: "-1" });

/** What stands where something could not be shown. Only the words are an alert: a button may change without one. */
export function failure(error, again) {
  const unknown = error instanceof Problem && error.status === 401;
  const parts = [element("p", { role: "alert" }, unknown ? whyUnknown() : error.message)];
  if (unknown) {
    parts.push(chooseButton());
  } else if (error instanceof Unreachable || error.status >= 500 || error.status === 429) {
    parts.push(againButton(again, error.retryAfter ?? 0));
  } else if (!(error instanceof Problem)) {
    // A fault of the page's own is for whoever looks into it.
    queueMicrotask(() => reportError(error));
  }
  return element("div", { class: "failure" }, parts);
}

/** A button that can be pressed once the seconds are over for which Lectern has asked not to be. */
function againButton(again, seconds) {
  const until = Date.now() + seconds * 1000;
  const left = () => Math.ceil((until - Date.now()) / 1000);
  const button = element("button", { type: "button", onclick: () => left() <= 0 && again() });
  const show = () => {
    const wait = left();
    button.textContent = wait > 0 ? `Try again in ${duration(wait)}` : "Try again";
    button.setAttribute("aria-disabled", String(wait > 0));
    if (wait > 0) setTimeout(show, 1000);
  };
  show();
  return button;
}

/** Why Lectern does not know who is asking, and how to go on. */
export function whyUnknown() {
  if (current() !== null) {
    return "Lectern has refused your token: it may have run out, or come from an issuer that Lectern does not know. Go on with another one; what you did is kept on this device until then.";
  }
  if (hasRunOut()) return "Your token has run out. Go on with another one; what you did is kept on this device until then.";
  return "This is for somebody in particular.";
}

export const chooseButton = () =>
  element("button", { type: "button", class: "primary", onclick: choose }, "Choose who you are");

/**
 * A list that grows page by page. Its first page is the caller's to load, and to say so where that fails.
 * @param {HTMLElement} list takes the rows
 * @param {(cursor: string | null) => Promise<{ rows: HTMLElement[], next: string | null }>} fetchPage
 */
export function pages(list, fetchPage) {
  const more = element("button", { type: "button", hidden: true, onclick: () => void loadMore() }, "Show more");
  const place = element("div", { class: "more" }, more);
  let cursor = null;
  const load = async () => {
    const { rows, next } = await fetchPage(cursor);
    cursor = next;
    list.append(...rows);
    more.hidden = next === null;
    return rows;
  };
  const loadMore = async () => {
    more.disabled = true;
    try {
      const rows = await load();
      place.replaceChildren(more);
      rows[0]?.querySelector("a, button")?.focus();
      announce(`${rows.length} more.`);
    } catch (error) {
      if (error.name !== "AbortError") place.replaceChildren(failure(error, loadMore));
    }
    more.disabled = false;
  };
  return { more: place, load };
}
