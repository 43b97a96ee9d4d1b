// A section's content, shown. It is somebody else's text: of Markdown the harmless part is understood, and all else,
// HTML in particular, stays what it is, characters. Nothing here makes an image, a frame or a script.

import { element } from "./dom.js";

/** Most that is looked at for markup; what is longer is shown as it is. */
const MOST = 200_000;

const FENCE = /^(`{3,}|~{3,})/;
const HEADING = /^(#{1,6})\s+(.+)$/;
const RULE = /^(?:-{3,}|\*{3,}|_{3,})$/;
const BULLET = /^[*+-]\s+(.*)$/;
const NUMBERED = /^(\d{1,9})[.)]\s+(.*)$/;
const QUOTE = /^>\s?(.*)$/;
const TABLE_LINE = /^\|?\s*:?-+:?\s*(?:\|\s*:?-+:?\s*)*\|?$/;

/** The nodes of a content. */
export function render(content) {
  if (content.length > MOST) return [element("pre", { dir: "auto", class: "plain" }, content)];
  const lines = content.replaceAll("\r\n", "\n").split("\n");
  const nodes = [];
  let at = 0;
  while (at < lines.length) {
    const [node, next] = block(lines, at);
    if (node !== null) nodes.push(node);
    at = next;
  }
  return nodes;
}

/** The block that begins at a line, and the line after it. */
function block(lines, at) {
  const line = lines[at].trim();
  if (line === "") return [null, at + 1];
  const fence = FENCE.exec(line);
  if (fence) return code(lines, at, fence[1]);
  const heading = HEADING.exec(line);
  // The page has a first and a second level of its own.
  if (heading) return [text(`h${Math.min(heading[1].length + 2, 6)}`, heading[2]), at + 1];
  if (RULE.test(line)) return [element("hr"), at + 1];
  if (BULLET.test(line)) return list(lines, at, BULLET, "ul");
  if (NUMBERED.test(line)) return list(lines, at, NUMBERED, "ol");
  if (QUOTE.test(line)) return quote(lines, at);
  if (line.includes("|") && TABLE_LINE.test(lines[at + 1]?.trim() ?? "")) return table(lines, at);
  return paragraph(lines, at);
}

function code(lines, at, fence) {
  let end = at + 1;
  while (end < lines.length && !lines[end].trim().startsWith(fence)) end += 1;
  const content = lines.slice(at + 1, end).join("\n");
  return [element("pre", { tabindex: "0" }, element("code", {}, content)), end + 1];
}

/** Items of one kind; a line that is indented goes on with the item before it. */
function list(lines, at, pattern, name) {
  const items = [];
  let end = at;
  for (; end < lines.length; end += 1) {
    const item = pattern.exec(lines[end].trim());
    if (item && !/^\s{2,}/.test(lines[end])) items.push(item.at(-1));
    else if (items.length > 0 && /^\s{2,}\S/.test(lines[end])) items.push(`${items.pop()} ${lines[end].trim()}`);
    else break;
  }
  const start = name === "ol" ? { start: NUMBERED.exec(lines[at].trim())[1] } : {};
  return [element(name, { dir: "auto", ...start }, items.map((item) => text("li", item, {}))), Math.max(end, at + 1)];
}

function quote(lines, at) {
  let end = at;
  const quoted = [];
  for (; end < lines.length && QUOTE.test(lines[end].trim()); end += 1) quoted.push(QUOTE.exec(lines[end].trim())[1]);
  return [element("blockquote", { dir: "auto" }, text("p", quoted.join(" "), {})), end];
}

function table(lines, at) {
  const cells = (line) => line.trim().replace(/^\|/, "").replace(/\|$/, "").split("|");
  const row = (line, name) => element("tr", {}, cells(line).map((cell) => text(name, cell.trim(), {})));
  let end = at + 2;
  while (end < lines.length && lines[end].includes("|")) end += 1;
  const body = lines.slice(at + 2, end).map((line) => row(line, "td"));
  const shown = element("table", { dir: "auto" }, element("thead", {}, row(lines[at], "th")), element("tbody", {}, body));
  return [element("div", { class: "wide", tabindex: "0", role: "region", "aria-label": "Table" }, shown), end];
}

function paragraph(lines, at) {
  let end = at + 1;
  const opens = (line) => [FENCE, HEADING, BULLET, NUMBERED, QUOTE].some((pattern) => pattern.test(line));
  while (end < lines.length && lines[end].trim() !== "" && !opens(lines[end].trim())) end += 1;
  return [text("p", lines.slice(at, end).map((line) => line.trim()).join(" ")), end];
}

const INLINE = /`([^`]+)`|\*\*([^*]+)\*\*|\*([^*\s][^*]*)\*|\[([^\][]+)\]\(([^()\s]+)\)/g;

/** A text with code, emphasis and links. It reads in a direction of its own, unless it is part of what has one. */
function text(name, source, attributes = { dir: "auto" }) {
  const parts = [];
  let at = 0;
  for (const found of source.matchAll(INLINE)) {
    parts.push(source.slice(at, found.index), inline(found));
    at = found.index + found[0].length;
  }
  parts.push(source.slice(at));
  return element(name, attributes, parts);
}

function inline([whole, code, strong, emphasis, label, target]) {
  if (code !== undefined) return element("code", {}, code);
  if (strong !== undefined) return element("strong", {}, strong);
  if (emphasis !== undefined) return element("em", {}, emphasis);
  const href = web(target);
  // A link elsewhere than into the web is no link.
  return href === null ? whole : element("a", { href, rel: "noopener noreferrer nofollow", target: "_blank" }, label);
}

function web(target) {
  const url = URL.canParse(target) ? new URL(target) : null;
  return url !== null && ["http:", "https:"].includes(url.protocol) ? url.href : null;
}
