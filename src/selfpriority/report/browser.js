// The browser of prompts: search, filter, sort, page and open, with the pointer or the keyboard alone.

const PAGE = 50;

const startBrowser = async () => {
  const root = document.getElementById("browser");
  if (!root) return;
  const index = await unpack(document.getElementById("prompts-index"));
  const bodies = bodiesOf(index.blocks);
  const form = root.querySelector("form");
  const list = document.getElementById("rows");
  const found = document.getElementById("found");
  const fields = form.elements;
  const isHeldOut = (number) => index.held_out[index.part[number]];
  const searched = index.id.map((id, number) => `${id} ${index.text[number]}`.toLowerCase());
  let deep = null;
  let shown = [];
  let page = 0;
  const open = new Set();

  // The two score vectors a row compares: two systems of a held-out prompt, or candidates and refined.
  const ends = (number) => {
    const scores = index.scores[number];
    if (!isHeldOut(number)) return scores;
    const [baseline, system] = fields.contest.value.split(" ").map(Number);
    return [scores[baseline] ?? [], scores[system] ?? []];
  };
  const change = (number, objective) => {
    const [before, after] = ends(number).map((scores) => scores[objective] ?? null);
    return before === null || after === null ? null : after - before;
  };
  const result = (difference) => {
    if (difference === null) return "";
    return difference > index.tie ? "won" : difference < -index.tie ? "lost" : "tied";
  };

  const fill = (select, choices) => {
    const before = select.value;
    select.replaceChildren(
      ...choices.map(([value, text]) => {
        const choice = make("option", "", text);
        choice.value = value;
        return choice;
      }),
    );
    if (choices.some(([value]) => value === before)) select.value = before;
    select.closest("label").hidden = choices.length < 2;
  };
  const counted = (names, column) => {
    const counts = names.map(() => 0);
    for (const place of column) counts[place] += 1;
    const choices = names.map((name, place) => [String(place), `${inWords(name)} (${counts[place].toLocaleString("en")})`]);
    return choices.length > 1 ? [["", "all"], ...choices] : choices;
  };
  const fillOutcomes = () => {
    const choices = [["", "all"]];
    index.objectives.forEach((name, objective) => {
      const counts = { won: 0, tied: 0, lost: 0 };
      index.part.forEach((part, number) => {
        const isListed = fields.part.value === "" || index.parts.length < 2 || part === Number(fields.part.value);
        const outcome = isListed && isHeldOut(number) ? result(change(number, objective)) : "";
        if (outcome) counts[outcome] += 1;
      });
      for (const [outcome, n] of Object.entries(counts)) {
        if (n) choices.push([`${outcome} ${objective}`, `${outcome} on ${inWords(name)} (${n.toLocaleString("en")})`]);
      }
    });
    const named = counted(index.outcomes, index.outcome).filter(([value]) => value !== "" && Number(value) !== index.outcomes.indexOf("held-out"));
    fill(fields.outcome, [...choices, ...named.map(([value, text]) => [`is ${value}`, text])]);
  };

  const setUp = () => {
    fill(fields.part, counted(index.parts, index.part));
    fill(fields.kind, counted(index.kinds, index.kind));
    const contests = index.systems.flatMap((system, later) =>
      index.systems.slice(0, later).map((baseline, earlier) => [`${earlier} ${later}`, `${system} against ${baseline}`]),
    );
    fill(fields.contest, contests.length ? contests : [["0 0", "one system"]]);
    const lead = index.contest.map((name) => index.systems.indexOf(name));
    if (lead.length === 2) fields.contest.value = `${lead[0]} ${lead[1]}`;
    const sorts = index.objectives.flatMap((name, objective) => [
      [`up ${objective}`, `${inWords(name)}: largest rise`],
      [`down ${objective}`, `${inWords(name)}: largest fall`],
    ]);
    fill(fields.sort, [["", "order of the run"], ...sorts]);
    fillOutcomes();
  };

  const matches = (number, terms) => {
    if (fields.part.value !== "" && index.parts.length > 1 && index.part[number] !== Number(fields.part.value)) return false;
    if (fields.kind.value !== "" && index.kinds.length > 1 && index.kind[number] !== Number(fields.kind.value)) return false;
    const [what, which] = fields.outcome.value.split(" ");
    if (what === "is" && index.outcome[number] !== Number(which)) return false;
    if (what && what !== "is" && (!isHeldOut(number) || result(change(number, Number(which))) !== what)) return false;
    const text = deep ? deep[number] : searched[number];
    return terms.every((term) => text.includes(term));
  };
  const sorted = (numbers) => {
    const [direction, objective] = fields.sort.value.split(" ");
    if (!direction) return numbers;
    const sign = direction === "up" ? -1 : 1;
    const keys = new Map(numbers.map((number) => [number, change(number, Number(objective))]));
    const key = (number) => (keys.get(number) === null ? Infinity : sign * keys.get(number));
    return numbers.sort((a, b) => (key(a) === key(b) ? a - b : key(a) - key(b)));
  };
  const update = () => {
    const terms = fields.query.value.toLowerCase().split(/\s+/).filter(Boolean);
    shown = sorted(index.id.map((_, number) => number).filter((number) => matches(number, terms)));
    page = 0;
    open.clear();
    draw();
  };

  const scoreCell = (number, objective) => {
    const [before, after] = ends(number);
    const outcome = isHeldOut(number) ? result(change(number, objective)) : "";
    const sign = { won: "▲", lost: "▼", tied: "=" }[outcome] ?? "";
    const values = make("span", "values", `${shownScore(before[objective])} → ${shownScore(after[objective])}`);
    const cell = make("span", `change ${outcome}`, make("span", "name", `${inWords(index.objectives[objective])} `), values);
    const mark = make("span", "mark", sign);
    if (outcome) mark.title = outcome;
    cell.append(" ", mark);
    return cell;
  };
  // What stands on both sides of the arrow: two systems where they were compared, else a prompt's candidates and what
  // was made of them.
  const sides = (isCompared) => {
    const [baseline, system] = fields.contest.value.split(" ").map((place) => index.systems[Number(place)]);
    return isCompared ? `${baseline} → ${system}` : "candidates, mean → refined";
  };
  const drawHeads = (listed) => {
    const kinds = [true, false].filter((wanted) => listed.some((number) => isHeldOut(number) === wanted));
    const meaning = kinds.map((isCompared) => (kinds.length > 1 ? `${isCompared ? "held-out" : "round"}: ` : "") + sides(isCompared));
    const heads = index.objectives.map((name) =>
      make("span", "head change", make("span", "objective", inWords(name)), ...meaning.map((line) => make("span", "sides", line))),
    );
    const where = index.parts.length > 1 ? "part and outcome" : "outcome";
    const plain = ["prompt", "kind", where].map((text) => make("span", "head", text));
    const whole = document.getElementById("heads");
    whole.replaceChildren(...plain, ...heads);
    whole.hidden = listed.length === 0;
  };
  const drawRow = (number) => {
    const outcome = isHeldOut(number) ? "" : inWords(index.outcomes[index.outcome[number]]);
    const pairs = index.pairs[number] ? `, ${index.pairs[number]} pair${index.pairs[number] === 1 ? "" : "s"}` : "";
    const row = make("button", "row", make("span", "id", index.id[number]), make("span", "kind", index.kinds[index.kind[number]]));
    row.append(make("span", "outcome", index.parts.length > 1 ? `${index.parts[index.part[number]]}${outcome ? `: ${outcome}${pairs}` : ""}` : outcome));
    row.append(...index.objectives.map((_, objective) => scoreCell(number, objective)));
    if (fields.preview.checked) row.append(make("span", "preview", index.text[number]));
    row.type = "button";
    row.dataset.number = number;
    row.setAttribute("aria-expanded", "false");
    return make("li", "", row);
  };
  const toggle = async (row, wanted) => {
    const number = Number(row.dataset.number);
    if (wanted === open.has(number)) return;
    row.setAttribute("aria-expanded", String(wanted));
    row.parentElement.querySelector(".detail")?.remove();
    if (!wanted) {
      open.delete(number);
      return;
    }
    open.add(number);
    const detail = make("div", "detail");
    row.after(detail);
    const body = await bodies.one(number);
    detail.replaceChildren(wholePrompt(body, index.objectives, isHeldOut(number)));
  };
  const rows = () => [...list.querySelectorAll("button.row")];
  const draw = () => {
    const last = Math.max(0, Math.ceil(shown.length / PAGE) - 1);
    page = Math.min(Math.max(page, 0), last);
    const listed = shown.slice(page * PAGE, (page + 1) * PAGE);
    drawHeads(listed);
    list.replaceChildren(...listed.map(drawRow));
    const all = index.id.length.toLocaleString("en");
    found.textContent = shown.length === index.id.length ? `${all} prompts` : `${shown.length.toLocaleString("en")} of ${all} prompts`;
    document.getElementById("where").textContent = last ? `page ${page + 1} of ${last + 1}` : "";
    document.getElementById("before").disabled = page === 0;
    document.getElementById("after").disabled = page === last;
    root.querySelector(".pages").hidden = last === 0;
    const unfold = document.getElementById("unfold");
    unfold.hidden = shown.length === 0;
    unfold.textContent = "Unfold this page";
  };
  const turn = (by) => {
    page += by;
    open.clear();
    draw();
  };

  const readAnswers = async () => {
    const texts = [...searched];
    const add = (number, body) => {
      texts[number] += ` ${[...body.turns.map((each) => each[1]), ...body.answers.map((each) => each.text)].join(" ").toLowerCase()}`;
    };
    await bodies.each(add, (share) => {
      found.textContent = `reading answers: ${Math.round(100 * share)} %`;
    });
    return texts;
  };
  let everything = null;
  const changed = async (event) => {
    if (event.target === fields.deep) {
      if (fields.deep.checked) everything ??= readAnswers();
      deep = fields.deep.checked ? await everything : null;
    }
    if (event.target === fields.contest || event.target === fields.part) fillOutcomes();
    update();
  };
  form.addEventListener("input", changed);
  form.addEventListener("submit", (event) => event.preventDefault());
  list.addEventListener("click", (event) => {
    const row = event.target.closest("button.row");
    if (row) toggle(row, row.getAttribute("aria-expanded") === "false");
  });
  document.getElementById("before").addEventListener("click", () => turn(-1));
  document.getElementById("after").addEventListener("click", () => turn(1));
  document.getElementById("unfold").addEventListener("click", async (event) => {
    const wanted = rows().some((row) => row.getAttribute("aria-expanded") === "false");
    event.target.textContent = wanted ? "Fold this page" : "Unfold this page";
    for (const row of rows()) await toggle(row, wanted);
  });
  listenToKeys({ root, list, rows, toggle, turn, search: fields.query });

  setUp();
  update();
  root.hidden = false;
};
