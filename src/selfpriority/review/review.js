"use strict";
// One question at a time: read, decide on every objective, and the next one comes. Texts only ever become text nodes.

const byId = (id) => document.getElementById(id);
const make = (tag, className, ...children) => {
  const element = document.createElement(tag);
  if (className) element.className = className;
  element.append(...children);
  return element;
};
const COMPARE = [["left", "← Left"], ["tie", "No difference"], ["right", "Right →"]];
const COMPARE_KEYS = { ArrowLeft: "left", 1: "left", ArrowDown: "tie", 2: "tie", t: "tie", ArrowRight: "right", 3: "right" };

let question = null;
let verdicts = {};
let shownAt = 0;
let busy = false;

const ask = async (place, body) => {
  const options = body ? { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) } : {};
  const reply = await fetch(place, options);
  const value = await reply.json();
  if (!reply.ok) throw new Error(value.error);
  return value;
};

const guarded = async (work) => {
  if (busy) return;
  busy = true;
  try {
    await work();
    byId("trouble").hidden = true;
  } catch (error) {
    byId("trouble").hidden = false;
    byId("trouble").textContent = error instanceof TypeError ? "The program has stopped. Start it again, and open its new address." : error.message;
  } finally {
    busy = false;
  }
};

const show = (name) => {
  for (const section of document.querySelectorAll("main > section")) section.hidden = section.id !== name;
};

const present = (next) => {
  question = next;
  byId("progress").textContent = `${next.done} of ${next.total} answered`;
  byId("bar").max = next.total;
  byId("bar").value = next.done;
  if (next.finished) {
    show("end");
    return;
  }
  verdicts = { ...next.verdicts };
  shownAt = performance.now();
  byId("turns").replaceChildren(
    ...next.turns.map(([role, text]) => make("div", "turn", make("h2", "", role === "user" ? "Prompt" : role), make("p", "text", text))),
  );
  const names = next.mode === "compare" ? ["Left", "Right"] : ["Answer"];
  byId("answers").replaceChildren(
    ...next.answers.map((text, place) => make("article", "answer", make("h2", "", names[place]), make("p", "text", text || "(empty)"))),
  );
  byId("verdicts").className = next.mode;
  byId("verdicts").replaceChildren(...next.objectives.map(fieldOf));
  byId("back").disabled = next.number === 0;
  byId("keys").textContent = next.mode === "compare" ? "Keys: ← left, → right, ↓ no difference" : "Keys: 1 to 9, and 0 for 10";
  show("work");
  mark();
  window.scrollTo(0, 0);
};

const fieldOf = (objective) => {
  const choices = question.mode === "compare" ? COMPARE : Array.from({ length: 10 }, (_, place) => [place + 1, String(place + 1)]);
  const buttons = choices.map(([value, text]) => {
    const button = make("button", "", text);
    button.type = "button";
    button.dataset.value = value;
    button.addEventListener("click", () => decide(objective.name, value));
    return button;
  });
  const meaning = make("details", "", make("summary", "", "What it means"), make("p", "", objective.definition));
  if (question.mode === "rate") {
    meaning.append(make("ul", "", ...objective.rubric.map(([rating, text]) => make("li", "", `${rating}: ${text}`))));
  }
  const title = question.mode === "compare" ? `${objective.name}: which answer has more of it?` : `${objective.name}, 1 to 10`;
  const field = make("fieldset", "", make("legend", "", title), make("div", "choices", ...buttons), meaning);
  field.dataset.objective = objective.name;
  return field;
};

const open = () => question.objectives.find((objective) => !(objective.name in verdicts));

const mark = () => {
  const now = open()?.name;
  for (const field of document.querySelectorAll("fieldset")) {
    const said = verdicts[field.dataset.objective];
    field.classList.toggle("now", field.dataset.objective === now);
    for (const button of field.querySelectorAll("button")) {
      button.setAttribute("aria-pressed", String(button.dataset.value === String(said)));
    }
  }
};

const decide = (name, value) => {
  if (busy) return;
  verdicts[name] = value;
  mark();
  if (open()) return;
  const seconds = (performance.now() - shownAt) / 1000;
  guarded(async () => present(await ask("verdict", { number: question.number, verdicts, seconds })));
};

const back = () => {
  const number = question.finished ? question.total - 1 : question.number - 1;
  if (number >= 0) {
    guarded(async () => {
      present(await ask(`question/${number}`));
      verdicts = {};
      mark();
    });
  }
};

const begin = () => guarded(async () => present(await ask("next")));

byId("begin").addEventListener("click", begin);
byId("back").addEventListener("click", back);
byId("again").addEventListener("click", back);
byId("verdicts").addEventListener("submit", (event) => event.preventDefault());
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
  if (!byId("start").hidden) {
    if (event.key === "Enter" && event.target.id !== "begin") begin();
    return;
  }
  if (event.key === "b" || event.key === "Backspace") {
    event.preventDefault();
    back();
    return;
  }
  const now = byId("work").hidden ? undefined : open();
  if (!now) return;
  const rating = /^[0-9]$/.test(event.key) ? Number(event.key) || 10 : undefined;
  const value = question.mode === "compare" ? COMPARE_KEYS[event.key] : rating;
  if (value === undefined) return;
  event.preventDefault();
  decide(now.name, value);
});
