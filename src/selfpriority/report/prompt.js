// One prompt, unfolded: what was asked, what everybody answered, how it was rated, paired or dropped.

const tagsOf = (answer) => answer.tags.flatMap((tag) => [" ", make("span", "tag", tag)]);

const scoresOf = (answer, objectives) => {
  const line = make("span", "scores");
  if (!answer.scores.length) line.append("not rated");
  answer.scores.forEach((score, place) => {
    if (place) line.append(" · ");
    line.append(`${inWords(objectives[place])} `, make("b", "", score === null ? "unrated" : shownScore(score)));
  });
  return line;
};

const textOf = (answer) => {
  const parts = [make("p", "text", answer.text || (answer.length ? "" : "(empty)"))];
  if (answer.length) {
    const kept = answer.text.length.toLocaleString("en");
    parts.push(make("p", "note", `Cut: ${kept} of ${answer.length.toLocaleString("en")} characters are in this file.`));
  }
  return parts;
};

const turnsOf = (turns) => {
  const told = make("div", "turns");
  for (const [role, text] of turns) {
    told.append(make("div", "turn", make("h4", "", role === "user" ? "Prompt" : role), make("p", "text", text)));
  }
  if (!turns.length) told.append(make("p", "note", "The text of this prompt was dropped with it."));
  return told;
};

const sideBySide = (body, objectives) => {
  const side = make("div", "side");
  for (const answer of body.answers) {
    const head = make("h4", "", answer.name, ...tagsOf(answer));
    side.append(make("div", "answer", head, make("p", "", scoresOf(answer, objectives)), ...textOf(answer)));
  }
  return side;
};

// Best first, in the order of the objectives' priority; what nobody rated comes last.
const byPriority = (first, second) => {
  for (let place = 0; place < Math.max(first.scores.length, second.scores.length); place += 1) {
    const difference = (second.scores[place] ?? -1) - (first.scores[place] ?? -1);
    if (difference) return difference;
  }
  return 0;
};

const candidatesOf = (body, objectives) => {
  const list = make("div", "candidates");
  for (const answer of [...body.answers].sort(byPriority)) {
    const role = { refined: "refined", other: "refined, not the best" }[answer.role];
    const head = make("summary", "", make("span", "id", answer.name));
    if (role) head.append(" ", make("span", "tag role", role));
    head.append(...tagsOf(answer), " ", scoresOf(answer, objectives));
    list.append(make("details", `candidate ${answer.role}`, head, ...textOf(answer)));
  }
  return list;
};

const pairsOf = (body, objectives) => {
  const table = make("table", "pairs");
  const heads = ["chosen", "over", "decided by", "distance", "gap"];
  const classes = ["", "", "", "number", "number"];
  const row = (tag, cells) => make("tr", "", ...cells.map((cell, place) => make(tag, classes[place], cell)));
  const lines = body.pairs.map(([chosen, rejected, decided, distance, gap]) => {
    const names = [body.answers[chosen].name, body.answers[rejected].name];
    return row("td", [...names, inWords(objectives[decided]), shownScore(distance), shownScore(gap)]);
  });
  table.append(make("thead", "", row("th", heads)), make("tbody", "", ...lines));
  const count = `${lines.length} preference pair${lines.length === 1 ? "" : "s"}`;
  return make("details", "", make("summary", "", count), make("div", "scroll", table));
};

const dropsOf = (body) => {
  const list = make("ul", "drops");
  for (const [answer, reason, detail] of body.drops) {
    const what = answer ? `Answer ${answer} was lost at ` : "Dropped at ";
    list.append(make("li", "", what, make("b", "", inWords(reason)), detail ? ` (${detail})` : ""));
  }
  return list;
};

const wholePrompt = (body, objectives, isHeldOut) => {
  const whole = document.createDocumentFragment();
  if (body.drops.length) whole.append(dropsOf(body));
  whole.append(turnsOf(body.turns));
  if (isHeldOut) {
    whole.append(sideBySide(body, objectives));
    return whole;
  }
  if (body.answers.length) {
    const all = make("button", "small", "Unfold all answers");
    all.type = "button";
    const head = make("h4", "", `${body.answers.length} answers, best first `, all);
    const list = candidatesOf(body, objectives);
    all.addEventListener("click", () => {
      const folds = [...list.querySelectorAll("details")];
      const open = folds.some((fold) => !fold.open);
      for (const fold of folds) fold.open = open;
      all.textContent = open ? "Fold all answers" : "Unfold all answers";
    });
    whole.append(head, list);
  }
  if (body.pairs.length) whole.append(pairsOf(body, objectives));
  return whole;
};
