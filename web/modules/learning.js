// The caller's courses, and what of their progress is still on its way.

import { call, query } from "./api.js";
import { element, foreign } from "./dom.js";
import { count, duration, plural, time } from "./format.js";
import { token } from "./identity.js";
import { chooseButton, heading, pages, progressBar, whyUnknown } from "./parts.js";
import { countLeft, drop, events, isRefused, onQueue, retry } from "./queue.js";

export async function learningPage({ signal }) {
  const bearer = await token();
  const list = element("ul", { class: "courses", "aria-label": "My courses" });
  let total = 0;
  const { more, load } = pages(list, async (cursor) => {
    const { body } = await call(`/me/courses${query({ limit: 20, cursor })}`, { token: bearer, signal });
    total += body.enrollments.length;
    return { rows: body.enrollments.map(card), next: body.nextCursor };
  });
  await load();
  const none = element("p", {}, "You are in no course yet. ", element("a", { href: "#/courses" }, "Find one."));
  return { title: "My courses", nodes: [heading("My courses"), total === 0 ? none : list, more] };
}

function card(enrollment) {
  const bar = progressBar(`Progress in ${enrollment.courseTitle}`);
  bar.update(enrollment);
  const next = enrollment.nextSectionId;
  return element(
    "li",
    { class: "card" },
    element("h2", {}, foreign("a", enrollment.courseTitle, { href: `#/courses/${enrollment.courseId}` })),
    bar.node,
    element("p", { class: "facts" }, `${duration(enrollment.totalTimeSpent)} learnt · last active ${time(enrollment.lastActivityAt ?? enrollment.enrolledAt)}`),
    enrollment.completedAt ? element("p", { class: "badge" }, "Completed.") : null,
    enrollment.totalSections === 0 ? element("p", { class: "quiet" }, "Nothing is in this course yet.") : null,
    next ? element("a", { class: "button", href: `#/sections/${next}` }, "Continue") : null,
  );
}

/** Why an event was not recorded. */
const REASONS = {
  unknown_section: "The section is no longer there.",
  not_published: "The course is not published.",
  not_enrolled: "You are not enrolled.",
  too_old: "It happened too long ago.",
  in_future: "It seems to happen in the future: the clock of this device may be wrong.",
  before_reset: "You have started the course over since.",
  event_conflict: "It was recorded before, with other content.",
  parked_too_long: "Lectern's database was away for too long. It can be sent again.",
};
/** What sending again cannot change. */
const FINAL = ["too_old", "before_reset", "event_conflict"];

export async function queuePage({ signal }) {
  const place = element("div", { tabindex: "-1", role: "group", "aria-label": "What is on its way" });
  const show = () => {
    const all = events();
    const stood = document.activeElement?.closest(".queue li")?.dataset.event;
    place.replaceChildren(
      isRefused() ? element("div", { class: "failure" }, element("p", { role: "alert" }, whyUnknown()), chooseButton()) : "",
      ...(all.length === 0 ? nothing() : [element("ul", { class: "queue" }, all.map(entry))]),
    );
    if (stood === undefined) return;
    // The list is new, and whoever stood in it goes on from the same entry, or from the list's beginning.
    const same = [...place.querySelectorAll("li")].find((item) => item.dataset.event === stood);
    (same?.querySelector("button") ?? place).focus();
  };
  signal.addEventListener("abort", onQueue(show));
  show();
  const words =
    "What you do is kept on this device until Lectern has recorded it. It is sent by itself as soon as that is possible.";
  return { title: "On its way", nodes: [heading("On its way"), element("p", { class: "lead" }, words), place] };
}

/** What stands where there is nothing to list. Nobody sees the names of those who learnt here before. */
function nothing() {
  const left = countLeft();
  if (left === 0) return [element("p", {}, "Everything that you did has arrived.")];
  const words = `Not sent yet: ${plural(left, "entry", "entries")}, kept on this device until the learner signs in.`;
  return [element("p", {}, words), chooseButton()];
}

function entry(event) {
  const said = {
    waiting: "waits to be sent",
    parked: "is kept by Lectern and will count when its database is back",
    rejected: `was not recorded. ${REASONS[event.code] ?? ""}`,
  }[event.state];
  const what = event.completed ? "Completed" : `${count(event.timeSpent)} s read`;
  const buttons = [];
  if (event.state === "rejected") {
    if (!FINAL.includes(event.code)) buttons.push(button("Send again", () => retry(event)));
    buttons.push(button("Forget it", () => drop(event)));
  }
  return element("li", { "data-event": event.eventId }, element("p", {}, `${what}: `, foreign("bdi", event.title)), element("p", { class: "quiet" }, `${time(event.occurredAt)}; ${said}`), buttons);
}

const button = (words, onclick) => element("button", { type: "button", onclick }, words);
