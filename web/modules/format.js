// Numbers, times and durations as people read them.

const number = new Intl.NumberFormat("en-GB");
const percentage = new Intl.NumberFormat("en-GB", { maximumFractionDigits: 2 });
const moment = new Intl.DateTimeFormat("en-GB", { dateStyle: "medium", timeStyle: "short" });
const day = new Intl.DateTimeFormat("en-GB", { dateStyle: "medium" });

/** What stands where there is nothing. */
export const NOTHING = "–";

export const count = (value) => (value === null || value === undefined ? NOTHING : number.format(value));
export const percent = (value) => (value === null || value === undefined ? NOTHING : `${percentage.format(value)} %`);
export const time = (value) => (value ? moment.format(new Date(value)) : NOTHING);
export const date = (value) => (value ? day.format(new Date(value)) : NOTHING);

/** `1 lesson`, `2 lessons`; a plural of its own can be given. */
export const plural = (amount, word, words = `${word}s`) => `${count(amount)} ${amount === 1 ? word : words}`;

const UNITS = [
  ["d", 86_400],
  ["h", 3_600],
  ["min", 60],
  ["s", 1],
];

/** Seconds as the two largest units that they fill: `3 d 4 h`, `12 min`, `0 s`. */
export function duration(seconds) {
  if (seconds === null || seconds === undefined) return NOTHING;
  const sign = seconds < 0 ? "−" : "";
  let rest = Math.abs(Math.round(seconds));
  const first = UNITS.findIndex(([, size]) => rest >= size);
  if (first < 0) return "0 s";
  const parts = [];
  for (const [unit, size] of UNITS.slice(first, first + 2)) {
    const whole = Math.floor(rest / size);
    rest -= whole * size;
    if (whole > 0) parts.push(`${whole} ${unit}`);
  }
  return sign + parts.join(" ");
}
