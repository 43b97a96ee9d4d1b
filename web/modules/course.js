// A course: its outline, the caller's progress, enrolling, and ticking sections complete.

import { call, query } from "./api.js";
import { announce, element, foreign } from "./dom.js";
import { count, duration, plural } from "./format.js";
import { current, token } from "./identity.js";
import { chooseButton, failure, heading, progressBar } from "./parts.js";
import { add, events, onQueue, recordings, retry } from "./queue.js";

/** Reads a course with the caller's progress, or without where nobody is signed in. */
export async function readCourse(id, signal) {
  const recorded = recordings();
  const bearer = await token();
  const path = bearer ? `/me/courses/${id}` : `/courses/${id}`;
  const { body } = await call(path, { token: bearer, signal });
  return { progress: null, ...body, recorded };
}

/** Whether an event was refused because its learner is not enrolled; that may have been ended elsewhere. */
export const isOutside = (event) => event?.state === "rejected" && event.code === "not_enrolled";

/** Whether the caller is enrolled now; who has left keeps their progress. */
async function readEnrolled(course, signal) {
  const bearer = await token();
  if (!bearer || course.progress === null) return false;
  let cursor = null;
  do {
    const { body } = await call(`/me/courses${query({ limit: 100, cursor })}`, { token: bearer, signal });
    if (body.enrollments.some(({ courseId }) => courseId === course.id)) return true;
    cursor = body.nextCursor;
  } while (cursor !== null);
  return false;
}

/** All sections in the course's order. */
export const sectionsOf = (course) => course.lessons.flatMap(({ sections }) => sections);

/**
 * What a course's page keeps up to date: calls `show(course, sent)` whenever the course or the queue has changed;
 * `sent` maps the sections that are on their way to their event.
 */
export function follow(course, signal, show) {
  let known = course;
  const sent = () => {
    const own = events().filter(({ courseId, completed }) => courseId === course.id && completed);
    return new Map(own.map((event) => [event.sectionId, event]));
  };
  const refresh = () => show(known, sent());
  const reread = async () => {
    try {
      const fresh = await readCourse(course.id, signal);
      // Of two answers that overtake each other, the one that was asked for later.
      if (fresh.recorded >= known.recorded) known = fresh;
    } catch {
      // What was shown stays: it was true a moment ago.
    }
    if (!signal.aborted) refresh();
  };
  const stop = onQueue((changed) => void (changed.includes(course.id) ? reread() : refresh()));
  signal.addEventListener("abort", stop);
  refresh();
  // Something may have been recorded between reading the course and listening to the queue.
  if (course.recorded !== recordings()) void reread();
  return reread;
}

/** How many sections are on their way that do not count yet. */
export function countSent(course, sent) {
  const open = sectionsOf(course).filter(({ id, progress }) => !progress?.completed && sent.has(id));
  return open.filter(({ id }) => sent.get(id).state !== "rejected").length;
}

const SAID = {
  open: "Mark complete",
  waiting: "To be sent",
  parked: "Kept, not counted yet",
  rejected: "Not recorded",
  complete: "Complete",
};

/** The button by which `sub` ticks a section complete. `update` shows how things stand. */
export function tick(course, section, sub, timeSpent) {
  const mark = element("span", { class: "mark", "aria-hidden": "true" });
  const words = element("span", { class: "tick-words" });
  const button = element("button", { type: "button", class: "tick" }, mark, words);
  button.addEventListener("click", () => {
    if (button.getAttribute("aria-disabled") === "true") return;
    add({ sub, section: section.id, title: section.title, course: course.id, timeSpent: timeSpent(), completed: true });
  });
  const update = ({ completed, event }) => {
    const state = completed ? "complete" : (event?.state ?? "open");
    button.dataset.state = state;
    button.setAttribute("aria-pressed", String(completed || ["waiting", "parked"].includes(state)));
    button.setAttribute("aria-disabled", String(["complete", "waiting", "parked"].includes(state)));
    words.textContent = SAID[state];
    button.setAttribute("aria-label", `${words.textContent}: ${section.title}`);
  };
  return { button, update };
}

export async function coursePage({ id, signal }) {
  const sub = current()?.sub;
  const course = await readCourse(id, signal);
  let enrolled = await readEnrolled(course, signal);
  const bar = progressBar("Your progress");
  const place = element("section", { class: "mine", "aria-label": "Your progress", tabindex: "-1" });
  const rows = new Map();
  const outline = course.lessons.map((lesson) => lessonNode(course, lesson, sub, rows));

  const enrol = async (method, done) => {
    await call(`/courses/${course.id}/enrollment`, { method, token: await token(), signal });
    enrolled = method === "PUT";
    await reread();
    announce(done);
    if (!enrolled) return;
    // What was refused for want of an enrollment counts now.
    for (const event of events()) if (event.courseId === course.id && isOutside(event)) retry(event);
  };
  const known = new Set();
  /** An enrollment can be ended elsewhere; what Lectern then refuses is what tells. */
  const recheck = async (sent) => {
    const refused = [...sent.values()].filter((event) => isOutside(event) && !known.has(event.eventId));
    if (!enrolled || refused.length === 0) return;
    for (const { eventId } of refused) known.add(eventId);
    enrolled = await readEnrolled(course, signal).catch(() => enrolled);
    if (enrolled || signal.aborted) return;
    await reread();
    announce("You are not enrolled any more.");
  };
  let before = null;
  let shown = null;
  const reread = follow(course, signal, (now, sent) => {
    // What would say the same stays: whoever stands on one of its buttons would lose their place.
    const { resume, completedAt, newSectionsSinceCompletion: added } = now.progress ?? {};
    const standpoint = JSON.stringify([enrolled, now.progress === null, resume?.nextSectionId, completedAt, added]);
    if (standpoint !== shown) {
      const inside = place.contains(document.activeElement);
      place.replaceChildren(...standing(now, enrolled, bar, enrol));
      if (inside) (place.querySelector(".primary") ?? place).focus({ preventScroll: true });
    }
    shown = standpoint;
    void recheck(sent);
    for (const section of sectionsOf(now)) {
      const completed = section.progress?.completed ?? false;
      rows.get(section.id)?.({ completed, event: sent.get(section.id), enrolled });
    }
    if (now.progress === null) return;
    const words = bar.update(now.progress, countSent(now, sent));
    if (before !== null && before !== words) announce(words);
    before = words;
  });

  const facts = element(
    "p",
    { class: "facts" },
    element("span", { class: "tag" }, course.difficulty),
    course.status === "published" ? null : element("span", { class: "tag" }, course.status),
    element("span", {}, plural(course.lessonCount, "lesson")),
    element("span", {}, plural(course.sectionCount, "section")),
    element("span", {}, `${count(course.enrollmentCount)} enrolled`),
  );
  return {
    title: course.title,
    nodes: [
      element("p", { class: "crumbs" }, element("a", { href: "#/courses" }, "Catalogue")),
      heading(course.title),
      facts,
      foreign("p", course.description, { class: "lead" }),
      place,
      element(
        "section",
        { "aria-labelledby": "outline" },
        element("h2", { id: "outline" }, "Outline"),
        outline.length > 0 ? outline : element("p", {}, "Nothing is in this course yet."),
      ),
    ],
  };
}

function lessonNode(course, lesson, sub, rows) {
  const items = lesson.sections.map((section) => {
    const { button, update } = tick(course, section, sub, () => 0);
    rows.set(section.id, ({ completed, event, enrolled }) => {
      button.hidden = !enrolled && !completed;
      update({ completed, event });
    });
    const length = section.duration === null ? "" : ` · ${duration(section.duration)}`;
    const about = element("span", { class: "quiet" }, foreign("bdi", section.type), length);
    const name = foreign("a", section.title, { href: `#/sections/${section.id}` });
    return element("li", { class: "section" }, element("div", { class: "grow" }, name, about), button);
  });
  return element("div", { class: "lesson" }, foreign("h3", lesson.title), element("ol", { class: "sections" }, items));
}

/** Where the caller stands, and what they can do about it. */
function standing(course, enrolled, bar, enrol) {
  if (current() === null) return [element("p", {}, "To learn, be somebody."), chooseButton()];
  const trouble = element("div");
  const act = (method, done) => async () => {
    try {
      await enrol(method, done);
    } catch (error) {
      if (error.name !== "AbortError") trouble.replaceChildren(failure(error, act(method, done)));
    }
  };
  // Who has enrolled a moment ago has no progress here where it could not be read.
  if (!enrolled || course.progress === null) {
    const left = course.progress !== null;
    const join = { type: "button", class: "primary", onclick: act("PUT", "You are enrolled.") };
    return [
      element("p", {}, left ? "You are no longer enrolled. Your progress is kept." : "You are not enrolled."),
      left ? bar.node : null,
      element("div", { class: "actions" }, element("button", join, left ? "Enrol again" : "Enrol")),
      trouble,
    ].filter(Boolean);
  }
  const { resume, newSectionsSinceCompletion: added, completedAt } = course.progress;
  const next = sectionsOf(course).find(({ id }) => id === resume.nextSectionId);
  const leave = { type: "button", class: "plain-button", onclick: act("DELETE", "You have left the course.") };
  const since = added ? `Completed. ${plural(added, "new section")} since.` : "Completed.";
  const onward = { class: "primary button", href: `#/sections/${next?.id}` };
  return [
    bar.node,
    completedAt ? element("p", { class: "badge" }, since) : null,
    element(
      "div",
      { class: "actions" },
      next ? element("a", onward, "Continue: ", foreign("bdi", next.title)) : null,
      element("button", leave, "Leave the course"),
    ),
    trouble,
  ].filter(Boolean);
}
