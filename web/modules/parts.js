// Pieces that several views show.

import { announce, drawing, element, foreign } from "./dom.js";
import { percent, plural } from "./format.js";
import { Problem, Unreachable } from "./api.js";
import { choose } from "./frame.js";

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

/** What stands where something could not be shown. */
export function failure(error, again) {
  const parts = [element("p", {}, error.message)];
  if (error instanceof Problem && error.status === 401) {
    parts.splice(0, 1, element("p", {}, "This is for somebody in particular."), chooseButton());
  } else if (error instanceof Unreachable || error.status >= 500 || error.status === 429) {
    parts.push(element("button", { type: "button", onclick: again }, "Try again"));
  } else if (!(error instanceof Problem)) {
    // A fault of the page's own is for whoever looks into it.
    queueMicrotask(() => reportError(error));
  }
  return element("div", { class: "failure", role: "alert" }, parts);
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
