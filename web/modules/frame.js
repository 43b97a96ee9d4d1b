// What all pages have in common: who is signed in, and the dialogue that changes it.

import { announce, element, foreign, freshId } from "./dom.js";
import { CAST, become, bring, current, forget, isLocal, onChange } from "./identity.js";

/** Puts the button that shows and changes the identity into the page's header. */
export function showIdentity() {
  const place = document.getElementById("identity");
  const button = element("button", { type: "button", class: "identity", "aria-haspopup": "dialog", onclick: choose });
  const show = () => {
    const identity = current();
    button.replaceChildren(
      ...(identity ? [element("span", { class: "quiet" }, "You are "), foreign("b", identity.sub)] : ["Choose who you are"]),
    );
  };
  show();
  onChange(show);
  place.replaceChildren(button);
}

/** Opens the dialogue. */
export function choose() {
  const title = freshId("title");
  const dialog = element("dialog", { "aria-labelledby": title, onclose: () => dialog.remove() });
  const close = element("button", { type: "button", class: "plain-button", onclick: () => dialog.close() }, "Close");
  dialog.append(
    element("div", { class: "dialog-head" }, element("h2", { id: title }, "Who are you?"), close),
    ...(isLocal ? castAndForm(dialog) : tokenForm(dialog)),
    current() ? signOut(dialog) : "",
  );
  document.body.append(dialog);
  dialog.showModal();
}

function castAndForm(dialog) {
  const failure = element("p", { role: "alert", class: "failure" });
  const people = CAST.map((person) =>
    element(
      "li",
      {},
      element(
        "button",
        { type: "button", onclick: () => enter(dialog, failure, () => become(person)) },
        element("b", {}, person.sub),
        element("span", { class: "quiet" }, person.about),
      ),
    ),
  );
  const name = element("input", { name: "sub", required: true, maxlength: "255", autocomplete: "off", dir: "auto" });
  const roles = ["instructor", "admin"].map((role) => {
    const box = element("input", { type: "checkbox", name: "groups", value: role });
    return element("label", { class: "inline" }, box, role);
  });
  const form = element(
    "form",
    {
      onsubmit: (event) => {
        event.preventDefault();
        const groups = new FormData(form).getAll("groups").join(",");
        enter(dialog, failure, () => become({ sub: name.value, groups }));
      },
    },
    element("label", {}, "Or anybody else", name),
    element("fieldset", {}, element("legend", {}, "in the groups"), roles),
    element("button", { class: "primary" }, "Be this person"),
  );
  return [
    element("p", {}, "The local run hands out a token for whoever you say you are."),
    failure,
    element("ul", { class: "cast" }, people),
    form,
  ];
}

function tokenForm(dialog) {
  const failure = element("p", { role: "alert", class: "failure" });
  const token = element("textarea", { name: "token", required: true, rows: "5", spellcheck: "false", autocomplete: "off" });
  const form = element(
    "form",
    {
      onsubmit: (event) => {
        event.preventDefault();
        enter(dialog, failure, () => bring(token.value));
      },
    },
    element("label", {}, "An access token of your issuer", token),
    element("p", { class: "quiet" }, "It stays in this tab, and is gone when you close it."),
    element("button", { class: "primary" }, "Use it"),
  );
  return [failure, form];
}

function signOut(dialog) {
  const leave = () => {
    forget();
    dialog.close();
    announce("You are nobody in particular now.");
  };
  return element("button", { type: "button", class: "plain-button", onclick: leave }, "Be nobody in particular");
}

async function enter(dialog, failure, step) {
  failure.textContent = "";
  try {
    await step();
    dialog.close();
    announce(`You are ${current().sub}.`);
  } catch (error) {
    failure.textContent = error.message;
  }
}
