// Charts: tables whose rows carry a drawing. Whoever sees no drawing reads the same numbers as a table.

import { drawing, element, foreign } from "./dom.js";
import { count, duration, percent } from "./format.js";

/** The drawing's own units; it stretches to whatever width there is. */
const WIDTH = 1000;
const HEIGHT = 20;

/**
 * One bar for each row, all on one scale.
 * @param {{ caption: string, note?: string, head: string[], rows: { label: string, href?: string, value: number | null,
 *   text: string }[], max: number }} chart
 */
export function bars({ caption, note, head, rows, max }) {
  const drawn = rows.map(({ label, href, value, text }) =>
    row(label, href, [
      grid(),
      drawing("rect", { class: "bar", width: value === null ? 0 : scale(value, max), height: HEIGHT }),
    ], text),
  );
  return chart(caption, note, head, drawn);
}

/**
 * The middle half of a distribution for each row, with the median marked.
 * @param {{ caption: string, note?: string, head: string[], rows: { label: string, href?: string, p25: number | null,
 *   median: number | null, p75: number | null }[] }} chart
 */
export function ranges({ caption, note, head, rows }) {
  const max = Math.max(1, ...rows.map(({ p75 }) => p75 ?? 0));
  const drawn = rows.map(({ label, href, p25, median, p75 }) => {
    if (median === null) return row(label, href, [grid()], "nobody yet");
    const from = scale(p25, max);
    const to = scale(p75, max);
    const shapes = [
      drawing("rect", { class: "range", x: from, width: Math.max(to - from, 4), height: HEIGHT }),
      drawing("rect", { class: "median", x: Math.min(scale(median, max), WIDTH - 6), width: 6, height: HEIGHT }),
    ];
    return row(label, href, [grid(), shapes], `${duration(p25)} · ${duration(median)} · ${duration(p75)}`);
  });
  return chart(caption, note, head, drawn);
}

/** The completion rate of each course. */
export function completionRates(courses) {
  return bars({
    caption: "Completion rate",
    note: "Completed of all who are enrolled.",
    head: ["Course", "From 0 to 100 %", "Completed"],
    max: 100,
    rows: courses.map(({ title, href, figures }) => ({
      label: title,
      href,
      value: figures.completionRate,
      text:
        figures.completionRate === null
          ? "nobody yet"
          : `${percent(figures.completionRate)} (${count(figures.completedEnrollments)} of ${count(figures.totalEnrollments)})`,
    })),
  });
}

/** How long it took to complete each course. */
export function completionTimes(courses) {
  return ranges({
    caption: "Time to completion",
    note: "From enrolling to completing: the middle half of the learners, and the median.",
    head: ["Course", "Distribution", "Quarter · half · three quarters"],
    rows: courses.map(({ title, href, figures }) => ({
      label: title,
      href,
      p25: figures.p25CompletionTime,
      median: figures.medianCompletionTime,
      p75: figures.p75CompletionTime,
    })),
  });
}

const RANGES = { 0: "Nothing yet", "1-25": "Up to 25 %", "26-50": "Up to 50 %", "51-75": "Up to 75 %", "76-99": "Below 100 %", 100: "All" };

/** How many learners stand where. */
export function progressRanges({ progress, totalEnrollments }) {
  return bars({
    caption: "Progress",
    note: "How far the learners are now.",
    head: ["Of the sections", "Of all who are enrolled", "Learners"],
    max: Math.max(totalEnrollments, 1),
    rows: progress.map(({ range, learners }) => ({ label: RANGES[range] ?? range, value: learners, text: count(learners) })),
  });
}

/** How many learners have completed each section, in the course's order. */
export function dropOff({ sections, totalEnrollments }) {
  return bars({
    caption: "Where learners stop",
    note: "Who has completed each section, of all who are enrolled.",
    head: ["Section", "From 0 to 100 %", "Completed it"],
    max: Math.max(totalEnrollments, 1),
    rows: sections.map(({ title, completed, lessonOrder, order }) => ({
      label: `${lessonOrder}.${order} ${title}`,
      value: completed,
      text: `${count(completed)} of ${count(totalEnrollments)}`,
    })),
  });
}

const scale = (value, max) => (Math.min(Math.max(value, 0), max) / max) * WIDTH;

function grid() {
  return [0, 1, 2, 3, 4].map((quarter) =>
    drawing("rect", { class: "grid", x: Math.min((quarter * WIDTH) / 4, WIDTH - 2), width: 2, height: HEIGHT }),
  );
}

function row(label, href, shapes, text) {
  const name = href ? foreign("a", label, { href }) : foreign("span", label);
  return element(
    "tr",
    {},
    element("th", { scope: "row" }, name),
    element(
      "td",
      { class: "drawing" },
      drawing(
        "svg",
        { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", "aria-hidden": "true", focusable: "false" },
        shapes,
      ),
    ),
    element("td", { class: "number" }, text),
  );
}

function chart(caption, note, head, rows) {
  return element(
    "table",
    { class: "chart" },
    element("caption", {}, element("strong", {}, caption), note ? element("span", { class: "quiet" }, note) : null),
    element("thead", {}, element("tr", {}, head.map((title) => element("th", { scope: "col" }, title)))),
    element("tbody", {}, rows),
  );
}
