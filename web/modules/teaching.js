// A teacher's side: their courses, who takes them, and the figures as charts.

import { call, Problem, query } from "./api.js";
import { completionRates, completionTimes, dropOff, progressRanges } from "./charts.js";
import { announce, element, foreign } from "./dom.js";
import { count, date, duration, percent, plural, time } from "./format.js";
import { isLocal, token } from "./identity.js";
import { chooseButton, failure, heading, pages } from "./parts.js";

/** So many courses are compared at once. */
const COMPARED = 20;

/** Charts that compare courses; nothing where there are none. `bearer` answers the token of who may read their figures. */
export async function compare(courses, signal, bearer = token) {
  if (courses.length === 0) return null;
  const place = element("div", { class: "charts" });
  const show = async () => {
    const { figures, errors } = await readFigures(courses, signal, await bearer());
    place.replaceChildren(
      ...(figures.length > 0 ? [completionRates(figures), completionTimes(figures)] : []),
      ...(errors.length > 0 ? [missing(errors, again)] : []),
    );
  };
  const again = () => show().catch((error) => error.name === "AbortError" || place.replaceChildren(failure(error, again)));
  await show();
  return place;
}

function missing(errors, again) {
  const words = `The figures of ${plural(errors.length, "course")} could not be read.`;
  return element("div", {}, element("p", {}, words), failure(errors[0], again));
}

/** The figures of the courses, and why those of others could not be read. */
async function readFigures(courses, signal, bearer) {
  const errors = [];
  const read = async (course) => {
    try {
      const { body } = await call(`/courses/${course.id}/analytics`, { token: bearer, signal });
      return { title: course.title, href: `console.html#/teaching/${course.id}`, figures: body };
    } catch (error) {
      // One that fails takes no other with it, unless all would fail for the same reason.
      if (error.name === "AbortError" || error.status === 401) throw error;
      errors.push(error);
      return null;
    }
  };
  const figures = await Promise.all(courses.slice(0, COMPARED).map(read));
  return { figures: figures.filter((some) => some !== null), errors };
}

export async function teachingPage({ signal }) {
  const bearer = await token();
  const list = element("tbody");
  const first = [];
  const { more, load } = pages(list, async (cursor) => {
    const { body } = await call(`/me/authored-courses${query({ limit: 50, cursor })}`, { token: bearer, signal });
    if (cursor === null) first.push(...body.courses);
    return { rows: body.courses.map(row), next: body.nextCursor };
  });
  try {
    await load();
  } catch (error) {
    if (error instanceof Problem && error.status === 403) return strangers();
    throw error;
  }
  const published = first.filter(({ status }) => status !== "draft");
  const comparison = await compare(published, signal);
  const table = element(
    "div",
    { class: "wide", tabindex: "0", role: "region", "aria-label": "Table of your courses" },
    element(
      "table",
      {},
      element("thead", {}, element("tr", {}, ["Course", "Status", "Lessons", "Enrolled", "Changed"].map((title) => element("th", { scope: "col" }, title)))),
      list,
    ),
  );
  return {
    title: "Teaching",
    nodes: [
      heading("Teaching"),
      comparison && element("section", { "aria-labelledby": "compared" }, element("h2", { id: "compared" }, "Compared"), comparison),
      element("section", { "aria-labelledby": "own" }, element("h2", { id: "own" }, "Your courses"), first.length > 0 ? table : element("p", {}, "You have no courses yet."), more),
    ].filter(Boolean),
  };
}

function strangers() {
  const words = "This is for teachers: for who has the group “instructor” in their token.";
  return { title: "Teaching", nodes: [heading("Teaching"), element("p", {}, words), chooseButton()] };
}

function row(course) {
  return element(
    "tr",
    {},
    element("th", { scope: "row" }, foreign("a", course.title, { href: `#/teaching/${course.id}` })),
    element("td", {}, course.status),
    element("td", { class: "number" }, count(course.lessonCount)),
    element("td", { class: "number" }, count(course.enrollmentCount)),
    element("td", {}, date(course.updatedAt)),
  );
}

async function readDetails(id, bearer, signal) {
  return (await call(`/courses/${id}/analytics?detail=sections`, { token: bearer, signal })).body;
}

export async function taughtCoursePage({ id, signal }) {
  const bearer = await token();
  const [course, details] = await Promise.all([
    call(`/me/courses/${id}`, { token: bearer, signal }),
    readDetails(id, bearer, signal),
  ]);
  const place = element("div");
  const show = (figures) => place.replaceChildren(...chartsOf(course.body, figures));
  show(details);
  return {
    title: course.body.title,
    nodes: [
      element("p", { class: "crumbs" }, element("a", { href: "#/teaching" }, "Teaching")),
      heading(course.body.title),
      element("section", { "aria-labelledby": "figures" }, element("h2", { id: "figures" }, "Figures"), place, isLocal ? refresher(id, bearer, signal, show) : null),
      roster(id, bearer, signal),
    ],
  };
}

function chartsOf(course, figures) {
  if (figures.asOf === null) return [element("p", {}, "There are no figures yet: they come with the next refresh.")];
  const tiles = [
    ["Enrolled", count(figures.totalEnrollments)],
    [`Active in ${plural(figures.windowDays, "day")}`, count(figures.activeLearners)],
    ["Completed", count(figures.completedEnrollments)],
    ["Completion rate", percent(figures.completionRate)],
    ["Median time to completion", duration(figures.medianCompletionTime)],
    ["Mean time learnt, of completers", duration(figures.avgTimeSpent)],
  ];
  const shown = [{ title: course.title, figures }];
  return [
    element("p", { class: "quiet" }, `As of ${time(figures.asOf)}.`),
    element("dl", { class: "tiles" }, tiles.map(([name, value]) => element("div", {}, element("dt", {}, name), element("dd", {}, value)))),
    element(
      "div",
      { class: "charts" },
      progressRanges(figures),
      dropOff(figures),
      completionRates(shown),
      completionTimes(shown),
    ),
  ];
}

/** The local run refreshes figures for the asking; elsewhere they come by the clock. */
function refresher(id, bearer, signal, show) {
  const trouble = element("div");
  const refresh = async () => {
    try {
      const answer = await fetch("/_local/functions/refresh-analytics", { method: "POST", signal });
      if (!answer.ok) throw new Error("The figures could not be refreshed.");
      show(await readDetails(id, bearer, signal));
      announce("The figures are those of this moment.");
      trouble.replaceChildren();
    } catch (error) {
      trouble.replaceChildren(failure(error, refresh));
    }
  };
  return element("div", { class: "actions" }, element("button", { type: "button", onclick: refresh }, "Refresh the figures"), trouble);
}

const STATUSES = [
  ["", "Everybody"],
  ["active", "Enrolled"],
  ["cancelled", "Has left"],
];
const RANGES = [
  ["", "Any progress"],
  ["0", "Nothing yet"],
  ["1-25", "Up to 25 %"],
  ["26-50", "Up to 50 %"],
  ["51-75", "Up to 75 %"],
  ["76-99", "Up to 99 %"],
  ["100", "All"],
];

function roster(id, bearer, signal) {
  const status = select("status", STATUSES);
  const progress = select("progress", RANGES);
  const found = element("div");
  const show = async () => {
    const rows = element("tbody");
    let total = 0;
    const { more, load } = pages(rows, async (cursor) => {
      const asked = { limit: 20, status: status.value, progress: progress.value, cursor };
      const { body } = await call(`/courses/${id}/enrollments${query(asked)}`, { token: bearer, signal });
      total += body.enrollments.length;
      return { rows: body.enrollments.map(learner), next: body.nextCursor };
    });
    try {
      await load();
    } catch (error) {
      if (error.name !== "AbortError") found.replaceChildren(failure(error, show));
      return;
    }
    const head = ["Learner", "Status", "Progress", "Sections", "Time", "Last active"];
    const table = element("table", {}, element("thead", {}, element("tr", {}, head.map((title) => element("th", { scope: "col" }, title)))), rows);
    found.replaceChildren(
      total === 0 ? element("p", {}, "Nobody.") : element("div", { class: "wide", tabindex: "0", role: "region", "aria-label": "Table of learners" }, table),
      more,
    );
  };
  void show();
  const form = element("form", { class: "search", onchange: () => void show(), onsubmit: (event) => event.preventDefault() }, element("label", {}, "Who", status), element("label", {}, "How far", progress));
  return element("section", { "aria-labelledby": "roster" }, element("h2", { id: "roster" }, "Learners"), form, found);
}

function select(name, options) {
  return element("select", { name }, options.map(([value, text]) => element("option", { value }, text)));
}

function learner(enrollment) {
  return element(
    "tr",
    {},
    foreign("th", enrollment.userId, { scope: "row" }),
    element("td", {}, enrollment.status),
    element("td", { class: "number" }, percent(enrollment.completionPercentage)),
    element("td", { class: "number" }, `${count(enrollment.completedSections)} of ${count(enrollment.totalSections)}`),
    element("td", { class: "number" }, duration(enrollment.totalTimeSpent)),
    element("td", {}, time(enrollment.lastActivityAt)),
  );
}
