/** The little of the DOM that the page needs. Text goes in as text, never as HTML. */

/** An element of `index.html`; its absence is a mistake of ours. */
export function byId<Kind extends HTMLElement = HTMLElement>(id: string): Kind {
  const found = document.getElementById(id);
  if (!found) throw new Error(`index.html has no element "${id}"`);
  return found as Kind;
}

/** A new element with a class and children. */
export function element(name: string, className: string, ...children: (Node | string)[]): HTMLElement {
  const made = document.createElement(name);
  if (className) made.className = className;
  made.append(...children);
  return made;
}

/** A symbol of `index.html`, with what it means for those who do not see it. */
export function icon(name: string, meaning: string): DocumentFragment {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("aria-hidden", "true");
  const use = document.createElementNS("http://www.w3.org/2000/svg", "use");
  use.setAttribute("href", `#icon-${name}`);
  svg.append(use);
  const both = document.createDocumentFragment();
  both.append(svg, element("span", "unseen", meaning));
  return both;
}

/** A circle with the first letter of a name, in a colour of that name. */
export function paintAvatar(circle: HTMLElement, name: string): void {
  let sum = 0;
  for (const letter of name) sum = (sum * 31 + (letter.codePointAt(0) ?? 0)) % 997;
  circle.dataset["colour"] = String(sum % 8);
  circle.textContent = [...name][0] ?? "?";
}

const TIME = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit" });
const DAY = new Intl.DateTimeFormat(undefined, { weekday: "long", day: "numeric", month: "long" });
const DATE = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short" });

export function timeOf(timestamp: number): string {
  return TIME.format(timestamp);
}

export function dayOf(timestamp: number): string {
  return isToday(timestamp) ? "Today" : DAY.format(timestamp);
}

/** The time if it was today, else the date. */
export function briefly(timestamp: number): string {
  return isToday(timestamp) ? TIME.format(timestamp) : DATE.format(timestamp);
}

function isToday(timestamp: number): boolean {
  return new Date(timestamp).toDateString() === new Date().toDateString();
}
