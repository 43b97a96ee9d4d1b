// The catalogue: what is published, to be searched, sorted and paged through.

import { call, query } from "./api.js";
import { announce, element, foreign } from "./dom.js";
import { count, plural } from "./format.js";
import { failure, heading, pages } from "./parts.js";

/** How long after the last key a search begins. */
const PAUSE = 250;
const PAGE = 12;

const DIFFICULTIES = [
  ["", "Any level"],
  ["beginner", "Beginner"],
  ["intermediate", "Intermediate"],
  ["advanced", "Advanced"],
];
const SORTS = [
  ["", "Newest first"],
  ["title", "By title"],
  ["popular", "Most learners first"],
];
const SEARCH_SORTS = [["relevance", "Best match first"], ...SORTS.map(([value, text]) => [value || "newest", text])];

export async function catalogue({ parameters, signal }) {
  const list = element("ul", { class: "courses", "aria-label": "Courses" });
  const found = element("div", { class: "found" });
  const search = element("input", { type: "search", name: "q", maxlength: "200", value: parameters.get("q") ?? "", dir: "auto" });
  const difficulty = choice("difficulty", DIFFICULTIES, parameters.get("difficulty"));
  const sort = element("select", { name: "sort" });
  const offer = () => {
    const kept = sort.options.length > 0 ? sort.value : parameters.get("sort");
    const offered = search.value.trim() ? SEARCH_SORTS : SORTS;
    sort.replaceChildren(...offered.map(([value, text]) => option(value, text, value === kept)));
  };
  offer();

  let timer;
  let run = new AbortController();
  signal.addEventListener("abort", () => {
    clearTimeout(timer);
    run.abort();
  });
  const show = async () => {
    run.abort();
    run = new AbortController();
    const asked = { q: search.value.trim(), difficulty: difficulty.value, sort: sort.value };
    history.replaceState(null, "", `#/courses${query(asked)}`);
    const fresh = element("ul", { class: "courses", "aria-label": "Courses" });
    const { signal: ours } = run;
    let total = 0;
    const { more, load } = pages(fresh, async (cursor) => {
      const { body } = await call(`/courses${query({ ...asked, limit: PAGE, cursor })}`, { signal: ours });
      total += body.courses.length;
      return { rows: body.courses.map(card), next: body.nextCursor };
    });
    try {
      await load();
    } catch (error) {
      // Whoever types on has asked for something else.
      if (error.name !== "AbortError") found.replaceChildren(failure(error, show));
      return;
    }
    const nothing = total === 0 ? element("p", {}, asked.q ? "No course has these words." : "No course is here yet.") : null;
    found.replaceChildren(...[nothing, fresh, more].filter(Boolean));
    if (asked.q) announce(total === 0 ? "No course found." : `${plural(total, "course")} shown.`);
  };

  const later = () => {
    clearTimeout(timer);
    offer();
    timer = setTimeout(show, PAUSE);
  };
  const form = element(
    "form",
    {
      role: "search",
      class: "search",
      oninput: later,
      onsubmit: (event) => {
        event.preventDefault();
        clearTimeout(timer);
        void show();
      },
    },
    element("label", { class: "grow" }, "Search the catalogue", search),
    element("label", {}, "Level", difficulty),
    element("label", {}, "Order", sort),
  );
  found.append(list);
  await show();
  return { title: "Catalogue", nodes: [heading("Catalogue"), form, found] };
}

function choice(name, options, chosen) {
  return element("select", { name }, options.map(([value, text]) => option(value, text, value === chosen)));
}

const option = (value, text, selected) => element("option", { value, selected }, text);

function card(course) {
  return element(
    "li",
    { class: "card" },
    element("h2", {}, foreign("a", course.title, { href: `#/courses/${course.id}` })),
    foreign("p", course.description, { class: "clamp" }),
    element(
      "p",
      { class: "facts" },
      element("span", { class: "tag" }, course.difficulty),
      element("span", {}, plural(course.lessonCount, "lesson")),
      element("span", {}, `${count(course.enrollmentCount)} enrolled`),
      course.estimatedHours === null ? null : element("span", {}, `about ${count(course.estimatedHours)} h`),
    ),
  );
}
