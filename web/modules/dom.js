// Making elements. Text goes in as text nodes and nowhere else: there is no markup in strings, so none can run.

const SVG = "http://www.w3.org/2000/svg";

/**
 * An element: attributes as they are called in HTML, functions as listeners (`onclick`), `false` and `null` left out.
 * Children are nodes, texts, or arrays of them; `null` and `false` are left out.
 */
export function element(name, attributes = {}, ...children) {
  return fill(document.createElement(name), attributes, children);
}

/** The same for SVG. */
export function drawing(name, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, name), attributes, children);
}

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === "function") node.addEventListener(name.slice("on".length), value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

/** Somebody else's text, in whatever direction it reads. */
export function foreign(name, text, attributes = {}) {
  return element(name, { dir: "auto", ...attributes }, text);
}

/** Says something to those who do not see it happen. */
export function announce(text) {
  const region = document.getElementById("announcer");
  // The same words twice are only read twice if they were gone in between.
  region.textContent = "";
  requestAnimationFrame(() => (region.textContent = text));
}

let lastId = 0;

/** An id that nothing on this page has. */
export function freshId(name) {
  lastId += 1;
  return `${name}-${lastId}`;
}
