// What differs between one place that the page is served from and another. `make site` writes its own.

/** Where the API is, without a slash at the end; empty where it serves this page itself. */
export const api = "";

/** Where tokens come from: "local" asks the local run for them, "pasted" asks the person. */
export const tokens = "local";
