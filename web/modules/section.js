// A section, to be read. The time that it is looked at is part of what is recorded.

import { call, Problem } from "./api.js";
import { announce, element, foreign } from "./dom.js";
import { count, duration } from "./format.js";
import { current, token } from "./identity.js";
import { heading, progressBar } from "./parts.js";
import { countSent, follow, isOutside, readCourse, sectionsOf, tick } from "./course.js";
import { add } from "./queue.js";
import { render } from "./text.js";

/** Less than this is a glance, and not sent. */
const GLANCE = 5;
/** The most that one event can carry. */
const MOST = 86_400;

export async function sectionPage({ id, signal }) {
  // Who reads, whoever may be signed in when they stop.
  const { sub } = current();
  let section;
  try {
    section = (await call(`/sections/${id}`, { token: await token(), signal })).body;
  } catch (error) {
    if (error instanceof Problem && error.code === "not_enrolled") return closed();
    throw error;
  }
  const course = await readCourse(section.courseId, signal);
  const all = sectionsOf(course);
  const place = all.findIndex((other) => other.id === id);
  const watch = stopwatch(signal);
  const bar = progressBar("Your progress in the course");
  const { button, update } = tick(course, section, sub, watch.take);
  const outside = element("div", { role: "alert" });

  let before = null;
  const show = (now, sent) => {
    const progress = sectionsOf(now).find((other) => other.id === id)?.progress;
    bar.node.hidden = now.progress === null;
    button.hidden = now.progress === null;
    const event = sent.get(id);
    update({ completed: progress?.completed ?? false, event });
    if (isOutside(event) !== outside.hasChildNodes()) outside.replaceChildren(...(isOutside(event) ? left(course) : []));
    if (now.progress === null) return;
    const words = bar.update(now.progress, countSent(now, sent));
    if (before !== null && before !== words) announce(words);
    before = words;
  };
  follow(course, signal, show);
  if (course.progress !== null) keepTime(signal, watch, { sub, section, course });

  const length = section.duration === null ? "" : ` · ${duration(section.duration)}`;
  return {
    title: section.title,
    nodes: [
      element(
        "p",
        { class: "crumbs" },
        element("a", { href: "#/courses" }, "Catalogue"),
        element("a", { href: `#/courses/${course.id}` }, foreign("bdi", course.title)),
      ),
      heading(section.title),
      element("p", { class: "facts" }, foreign("bdi", section.type, { class: "tag" }), `Section ${count(place + 1)} of ${count(all.length)}${length}`),
      element("article", { class: "content", dir: "auto" }, render(section.content)),
      element("div", { class: "actions" }, button),
      outside,
      bar.node,
      element("nav", { class: "neighbours", "aria-label": "Sections" }, neighbour("Back", all[place - 1]), neighbour("Next", all[place + 1])),
    ],
  };
}

function closed() {
  const words = "The contents of a course are for those who are enrolled.";
  const back = element("a", { class: "button", href: "#/learning" }, "My courses");
  return { title: "Not enrolled", nodes: [heading("Not enrolled"), element("p", {}, words), element("p", {}, back)] };
}

/** An enrollment can be ended elsewhere while one reads. */
function left(course) {
  const words = "You are not enrolled in this course any more, so this does not count. It will once you enrol again: ";
  return [element("p", { class: "failure" }, words, foreign("a", course.title, { href: `#/courses/${course.id}` }))];
}

function neighbour(word, section) {
  if (!section) return element("span");
  return element("a", { href: `#/sections/${section.id}`, class: "neighbour" }, element("span", { class: "quiet" }, word), foreign("span", section.title));
}

/** Counts the seconds for which the page is seen. `take` answers those since it was last asked. */
function stopwatch(signal) {
  let since = document.visibilityState === "visible" ? performance.now() : null;
  let counted = 0;
  const pause = () => {
    if (since !== null) counted += performance.now() - since;
    since = null;
  };
  document.addEventListener(
    "visibilitychange",
    () => {
      pause();
      if (document.visibilityState === "visible") since = performance.now();
    },
    { signal },
  );
  const seconds = () => Math.min(Math.round((counted + (since === null ? 0 : performance.now() - since)) / 1000), MOST);
  const take = () => {
    const taken = seconds();
    counted = 0;
    if (since !== null) since = performance.now();
    return taken;
  };
  return { seconds, take };
}

/** Who reads on without ticking has learnt for that time all the same. */
function keepTime(signal, watch, { sub, section, course }) {
  const leave = () => {
    if (watch.seconds() < GLANCE) return;
    add({ sub, section: section.id, title: section.title, course: course.id, timeSpent: watch.take(), completed: false });
  };
  signal.addEventListener("abort", leave);
  addEventListener("pagehide", leave, { signal });
}
