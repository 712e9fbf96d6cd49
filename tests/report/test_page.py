"""The page: what it says, what it never loads, and that nothing in an answer becomes markup."""

import base64
import hashlib
import json
import re
import shutil
import zlib
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from selfpriority.errors import InputError
from selfpriority.evaluation.summary_file import read_summary
from selfpriority.evaluation.table import table
from selfpriority.records import Message
from selfpriority.report.page import write_report
from selfpriority.report.verdict import Evidence, cautions, evidence, headline
from selfpriority.report.view import read_view
from selfpriority.run import Run
from selfpriority.storage import read_json, write_json

VOID = {"meta", "br", "hr", "img", "input", "link"}


class Page(HTMLParser):
    """Checks that tags nest, and keeps what the tests ask about."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[tuple[str, str]] = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, f"</{tag}> at {self.getpos()}"

    def handle_data(self, data):
        self.words.append((self.open[-1] if self.open else "", data))

    def words_of(self, name: str) -> list[str]:
        return [data for tag, data in self.words if tag == name]

    @property
    def text(self) -> str:
        """What a reader sees."""
        shown = " ".join(data for tag, data in self.words if tag not in ("style", "script"))
        return " ".join(shown.split())


def page(folder: Path) -> Page:
    return Page(write_report(folder).read_text(encoding="utf-8"))


def test_page_is_well_formed_and_says_what_came_out(run_folder):
    shown = page(run_folder)
    change = read_json(run_folder / "evaluation/summary.json")["difference"]["spa_vs_vanilla"]["harmlessness"]
    said = f"spa against vanilla: harmlessness rose by {change['mean']:.2f}; helpfulness"
    assert f"On 40 held-out prompts, {said}" in shown.text
    assert f"harmlessness +{change['mean']:.2f}, 95 % interval +{change['low']:.2f} to" in shown.text
    ids = [attrs["id"] for _, attrs in shown.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    assert {"result", "behaviour", "judges", "rounds", "prompts", "settings"} <= set(ids)
    targets = {attrs["href"] for tag, attrs in shown.tags if tag == "a"}
    assert {target.removeprefix("#") for target in targets} <= set(ids)
    assert write_report(run_folder) == run_folder / "report.html"
    assert not list(run_folder.glob(".report.html.*"))


def test_nothing_is_loaded_from_outside(run_folder):
    html = write_report(run_folder).read_text(encoding="utf-8")
    assert not re.search(r"https?://|//cdn|@import|url\(", html)
    loading = {"src", "srcset", "poster", "data", "action", "background"}
    for tag, attrs in Page(html).tags:
        assert not loading & attrs.keys(), tag
        assert tag not in ("link", "img", "iframe", "object", "embed", "base"), tag
        assert (attrs.get("href") or "#").startswith("#")


HOSTILE = (
    "<script>alert('x')</script>",
    "</script></details></main><img src=x onerror=alert(1)>",
    "red \x1b[31malert\x1b[0m and \x1b]0;title\x07bell\x00 and \u202eback",
)


def unpacked(html: str) -> tuple[dict, list[dict]]:
    """The index of prompts and their bodies, as the page's script reads them."""
    packed = re.findall(r'<script type="text/plain"[^>]*>([^<]*)</script>', html)
    index, *blocks = (json.loads(zlib.decompress(base64.b64decode(text))) for text in packed)
    return index, [body for block in blocks for body in block]


def test_markup_and_control_codes_in_an_answer_stay_text(run_folder, rewrite_evaluation):
    rewrite_evaluation(run_folder / "evaluation", texts=HOSTILE)
    html = write_report(run_folder).read_text(encoding="utf-8")
    tags = Page(html).tags
    assert [attrs.get("type") for tag, attrs in tags if tag == "script"].count(None) == 1
    assert "img" not in {tag for tag, _ in tags}
    assert not any(name.startswith("on") for _, attrs in tags for name in attrs)
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", html)
    _, bodies = unpacked(html)
    texts = [answer["text"] for body in bodies[:3] for answer in body["answers"] if answer["name"] == "spa"]
    assert texts == [*HOSTILE[:2], "red alert and bell and back"]


def test_a_hostile_kind_in_somebody_elses_run_reaches_no_drawing_and_no_table(run_folder):
    path = run_folder / "evaluation" / "summary.json"
    text = path.read_text("utf-8")
    assert text.count('"harmful"') > 1
    path.write_text(text.replace('"harmful"', json.dumps("har\x1b[31m\x9b\u202emful\x00")), "utf-8")
    html = write_report(run_folder).read_text(encoding="utf-8")
    shown = table(read_summary(path))
    for written in (html, shown):
        assert "harmful" in written
        assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", written)
    assert "harmful prompts: " in "".join(re.findall("<title>[^<]*", html))


def test_a_hostile_name_in_the_run_stays_text(run_folder):
    path = run_folder / "round-1" / "funnel.json"
    funnel = read_json(path)
    funnel["steps"]["denoise"]["dropped"] = {"<script>alert(1)</script>": 3}
    write_json(path, funnel)
    shown = page(run_folder)
    assert [attrs.get("type") for tag, attrs in shown.tags if tag == "script"].count(None) == 1
    assert "3 <script>alert(1)</script>" in shown.text


def test_the_policy_of_the_page_allows_only_its_own_script_and_style(run_folder):
    shown = page(run_folder)
    policy = next(attrs["content"] for _, attrs in shown.tags if attrs.get("http-equiv"))
    for kind, text in (("script", shown.words_of("script")[-1]), ("style", shown.words_of("style")[0])):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert not [tag for tag, attrs in shown.tags if "style" in attrs]


def test_no_text_of_a_prompt_or_an_answer_is_in_the_page_itself(run_folder):
    shown = page(run_folder)
    assert "Question number" not in shown.text
    assert "That is all, really." not in shown.text


def test_every_prompt_is_in_the_page(run_folder, rewrite_evaluation):
    rewrite_evaluation(run_folder / "evaluation", n=80)
    index, bodies = unpacked(write_report(run_folder).read_text(encoding="utf-8"))
    assert len(index["id"]) == len(bodies) == 140
    assert index["parts"] == ["held-out", "round 1"]
    assert [answer["name"] for answer in bodies[0]["answers"]] == ["vanilla", "spa"]
    assert index["contest"] == ["vanilla", "spa"]


@pytest.mark.parametrize(
    "missing",
    [
        ("evaluation", "judge.json", "round-1", "manifest.json"),
        ("evaluation", "round-1"),
        ("evaluation", "round-1/3-refined.jsonl", "round-1/4-pools.jsonl", "round-1/training.jsonl"),
        ("evaluation/summary.json", "evaluation/verdicts-spa.jsonl"),
    ],
)
def test_an_unfinished_run_shows_what_there_is(run_folder, missing):
    for name in missing:
        path = run_folder / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    shown = page(run_folder)
    assert "no evaluation yet" in shown.text
    assert "The recipe with every default" in shown.text
    assert ("Where the prompts went" in shown.text) == (run_folder / "round-1").exists()


def test_the_page_tells_how_often_a_training_raised_an_alarm(run_folder: Path) -> None:
    path = run_folder / "round-1" / "training.jsonl"
    rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    for row, alarm in zip(rows, ("gradient_norm", "gradient_norm, collapse"), strict=False):
        row["alarm"] = alarm
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    page = write_report(run_folder).read_text("utf-8")
    assert f"<code>gradient_norm</code> at 2 of {len(rows)} steps" in page
    assert f"<code>collapse</code> at 1 of {len(rows)} steps" in page


def test_a_training_line_that_is_being_written_is_left_out(run_folder):
    with (run_folder / "round-1" / "training.jsonl").open("a") as file:
        file.write('{"step": 37, "lo')
    assert len(read_view(Run.existing(run_folder)).rounds[0].training) == 36


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(InputError, match="no run directory"):
        write_report(tmp_path)


def test_headline_claims_nothing_that_was_not_tested_and_corrected(run_folder):
    path = run_folder / "evaluation" / "summary.json"
    summary = read_json(path)
    untested = {"mean": -0.5, "low": -0.9, "high": -0.1, "p": 0.5, "n": 40}
    tested = {"mean": 0.2, "low": -0.01, "high": 0.5, "p": 0.02, "p_holm": 0.04, "significant": True, "n": 40}
    summary["difference"]["spa_vs_vanilla"] |= {"harmlessness": untested, "helpfulness": tested}
    write_json(path, summary)
    said = headline(read_view(Run.existing(run_folder)))
    assert said.endswith("harmlessness shows no clear change; helpfulness rose by 0.20.")
    assert evidence(read_view(Run.existing(run_folder))) == [
        Evidence("harmlessness", "\u22120.50, 95\u202f% interval \u22120.90 to \u22120.10, p = 0.500"),
        Evidence("helpfulness", "+0.20, 95\u202f% interval \u22120.01 to +0.50, corrected p = 0.040"),
        Evidence("over-refusals", "0\u202f% to 40\u202f% of what nobody should refuse, corrected p = 0.127"),
    ]


@pytest.mark.parametrize(("right", "is_told"), [(0.02, True), (0.74, True), (0.75, False), (0.98, False)])
def test_a_judge_that_takes_the_question_for_an_answer_is_a_caution(run_folder, right, is_told):
    judges = read_json(run_folder / "judge.json")
    judges["evaluate"]["objectives"][-1]["said_back"] = {"estimate": right, "low": 0.0, "high": 1.0, "n": 48}
    write_json(run_folder / "judge.json", judges)
    shown = page(run_folder).text
    told = "(evaluate) rates a good answer above the question, said back, in only"
    assert (told in shown) is is_told
    assert "good answers above the question" in shown  # beside what else moves a judge
    assert f"{right:.2f}" in shown


def test_cautions_name_weak_judges_small_samples_and_more_refusals(run_folder):
    judges = read_json(run_folder / "judge.json")
    judges["evaluate"] |= {"usable": False}
    write_json(run_folder / "judge.json", judges)
    shown = page(run_folder).text
    assert "The evaluation judge could not be shown to be better than chance." in shown
    assert "40 prompts are a small sample" in shown
    assert "Refusals of harmful prompts rose from 0 % to" in shown
    assert "a linear head on a small model's hidden states" in shown


def test_a_fall_of_the_first_objective_stands_at_the_top(run_folder):
    path = run_folder / "evaluation" / "summary.json"
    summary = read_json(path)
    cell = summary["difference"]["spa_vs_vanilla"]["harmlessness"]
    cell |= {"mean": -0.56, "low": -0.81, "high": -0.3, "p_holm": 0.004}
    write_json(path, summary)
    html = write_report(run_folder).read_text(encoding="utf-8")
    alarm = "The first objective fell: spa is rated 0.56 lower in harmlessness than vanilla, beyond chance"
    assert html.index('<ul class="cautions alarms"') < html.index(alarm) < html.index("are a small sample")
    cell |= {"p_holm": 0.4}
    write_json(path, summary)
    html = write_report(run_folder).read_text(encoding="utf-8")
    assert '<ul class="cautions alarms"' not in html
    assert "than vanilla, which may be chance." in html


def test_the_page_measures_repetition_that_an_older_summary_lacks(run_folder):
    path = run_folder / "evaluation" / "summary.json"
    summary = read_json(path)
    before = {name: row.pop("repetition") for name, row in summary["behaviour"].items()}
    write_json(path, summary)
    view = read_view(Run.existing(run_folder))
    assert view.summary is not None
    assert {name: row.repetition for name, row in view.summary.behaviour.items()} == before
    assert None not in before.values()


def test_calibration_is_drawn_where_single_answers_gave_it(run_folder):
    before = write_report(run_folder).read_text(encoding="utf-8")
    assert "labelled good" not in before
    judges = read_json(run_folder / "judge.json")
    bins = [
        {"low": low, "high": low + 1, "rating": low + 0.5, "positive": share, "n": 12}
        for low, share in ((2.0, 0.1), (5.0, 0.55), (8.0, 0.9))
    ]
    judges["train"]["objectives"][0]["calibration"] = bins
    judges["train"]["objectives"][1]["calibration"] = []
    write_json(run_folder / "judge.json", judges)
    html = write_report(run_folder).read_text(encoding="utf-8")
    told = "harmlessness, share labelled good by rating: 2.5: 10\u202f%, 5.5: 55\u202f%, 8.5: 90\u202f%"
    assert html.count(f"<title>{told}</title>") == 1
    assert html.count("labelled good, by tenths") == 1


def test_further_and_comparing_judges_are_shown_with_their_checks(run_folder):
    before = page(run_folder).text
    assert "Comparing judge" not in before
    judges = read_json(run_folder / "judge.json")
    row = {
        "win": 0.5,
        "tie": 0.25,
        "lose": 0.25,
        "n": 40,
        "flip_rate": 0.3,
        "first_shown": 0.7,
        "unread": {"refused": 3},
    }
    found = {"usable": False, "reason": "may be chance", "source": "anchors"}
    agreed = {"estimate": 0.62, "low": 0.48, "high": 0.75, "n": 40}
    silent = (
        dict.fromkeys(row) | found | {"objective": "helpfulness", "agreement": None, "n": 0, "unread": {"low_mass": 9}}
    )
    objectives = [{"objective": "harmlessness", "agreement": agreed, **row, **found}, silent]
    comparer = {"judge": "big", "method": "verbal", "key": "k", "usable": False, "reasons": ["may be chance"]}
    judges |= {"more_judges.small": judges["evaluate"], "comparer": {**comparer, "objectives": objectives}}
    write_json(run_folder / "judge.json", judges)
    html = write_report(run_folder).read_text(encoding="utf-8")
    shown = " ".join(Page(html).text.split())
    assert "Further judge small better than chance" in shown
    assert "Comparing judge not shown to be better than chance big, verbal" in shown
    assert "harmlessness 0.62 0.48 to 0.75" in shown
    assert "43 50 % 25 % 30 % 70 % 3" in shown.replace("\u202f", " ")
    assert "helpfulness - 9 - - - - 9" in shown.replace("\N{EN DASH}", "-")
    assert "The comparing judge could not be shown to be better than chance. Wins and losses below" in shown


@pytest.mark.parametrize("checked", ["nobody", "another"])
def test_a_judge_that_nobody_checked_is_not_believed_without_a_word(run_folder, checked):
    judges = read_json(run_folder / "judge.json")
    judges["evaluate"] |= {"judge": "the-old-one", "key": "key of the-old-one"}
    write_json(run_folder / "judge.json", judges)
    if checked == "nobody":
        (run_folder / "judge.json").unlink()
    view = read_view(Run.existing(run_folder))
    assert "spa against vanilla, by a judge that was not checked:" in headline(view)
    shown = page(run_folder).text
    assert "The evaluation judge was not checked against labelled answers." in shown
    assert ("the-old-one, probe" in shown) == (checked == "another")  # its check is shown under its own name


def test_one_deciding_objective_is_pointed_out(run_folder):
    path = run_folder / "round-1" / "funnel.json"
    funnel = read_json(path)
    funnel["pairs"]["decided_by"] = {"harmlessness": 400, "helpfulness": 12}
    write_json(path, funnel)
    assert "harmlessness decided nearly every pair" in page(run_folder).text


def test_pairs_that_lose_something_are_counted_beside_their_weight(run_folder):
    path = run_folder / "round-1" / "funnel.json"
    funnel = read_json(path)
    funnel["pairs"] |= {"contested": 0.43, "contested_weight": 0.23}
    write_json(path, funnel)
    text = " ".join(page(run_folder).text.split())
    assert "43 % of them lose on another objective than the one that decided; they hold 23 % of the weight." in text


def test_a_difference_that_its_corrected_test_doubts_is_not_claimed(run_folder):
    path = run_folder / "evaluation" / "summary.json"
    summary = read_json(path)
    doubtful = {"mean": 0.5, "low": 0.1, "high": 0.9, "p": 0.04, "p_holm": 0.16, "significant": False, "n": 40}
    certain = {"mean": -0.5, "low": -0.7, "high": -0.3, "p": 0.0001, "p_holm": 0.0004, "significant": True, "n": 40}
    summary["difference"]["spa_vs_vanilla"] |= {"harmlessness": doubtful, "helpfulness": certain}
    write_json(path, summary)
    view = read_view(Run.existing(run_folder))
    assert headline(view).endswith("harmlessness shows no clear change; helpfulness fell by 0.50.")
    told = [row.numbers.rpartition(", ")[2] for row in evidence(view) if row.objective in view.objectives]
    assert told == ["corrected p = 0.160", "corrected p < 0.001"]
    assert "p, corrected" in page(run_folder).text


def test_parts_of_a_summary_that_are_new_are_no_mistake(run_folder):
    path = run_folder / "evaluation" / "summary.json"
    write_json(path, read_json(path) | {"significance": {"vanilla": {"mmlu": 0.31}}})
    assert "On 40 held-out prompts" in page(run_folder).text


def test_four_systems_on_two_sets_have_every_table_twice(four_systems):
    shown = page(four_systems)
    ids = [attrs["id"] for _, attrs in shown.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    assert {"result", "result-over_refusal", "behaviour"} <= set(ids)
    assert ids.index("result") < ids.index("result-over_refusal") < ids.index("behaviour")
    links = [attrs["href"] for tag, attrs in shown.tags if tag == "a"]
    assert "#result-over_refusal" in links
    others = ("spa-round-1", "spa", "a_rather_long_system_name")
    contests = [(name, "vanilla") for name in others] + [(name, "spa") for name in others if name != "spa"]
    for system, baseline in contests:
        heads = [text for text in shown.words_of("th") + shown.words_of("h3") if f"{system} minus {baseline}, " in text]
        assert heads.count(f"{system} minus {baseline}, all prompts") == 2
        assert heads.count(f"{system} minus {baseline}, on the same prompts") == 2
        assert shown.text.count(f"harmlessness {system} against {baseline}, 39 prompts") == 1
        assert shown.text.count(f"harmlessness {system} against {baseline}, 19 prompts") == 1
    assert "vanilla minus" not in shown.text
    assert headline(read_view(Run.existing(four_systems))).startswith("On 40 held-out prompts, spa against vanilla:")
    assert "On 20 held-out prompts, spa against vanilla:" in shown.text
    assert "20 prompts are a small sample" in shown.text
    assert len([tag for tag, attrs in shown.tags if tag == "svg" and attrs["class"] == "pareto"]) == 2


def test_the_prompts_of_a_further_set_can_be_opened_too(four_systems):
    index, bodies = unpacked(write_report(four_systems).read_text(encoding="utf-8"))
    assert index["parts"] == ["held-out", "held-out: over_refusal", "round 1"]
    assert index["held_out"] == [True, True, False]
    assert len(bodies) == 40 + 20 + 60
    assert [answer["name"] for answer in bodies[45]["answers"]] == index["systems"]
    assert all(len(row) == 4 for row in index["scores"][:60])


def test_the_mixed_mean_has_its_interval_and_a_bare_one_of_an_older_summary_none(run_folder):
    path = run_folder / "evaluation" / "summary.json"
    summary = read_json(path)
    hh = summary["systems"]["spa"]["HH_5"]
    assert hh["low"] < hh["mean"] < hh["high"]
    shown = page(run_folder).text
    assert f" {hh['mean']:.2f} {hh['low']:.2f} to {hh['high']:.2f} " in shown
    for group in (summary, *summary["by_kind"].values()):
        for rows in group["systems"].values():
            rows["HH_5"] = 4.321
    write_json(path, summary)
    assert "4.32" in page(run_folder).text


def test_unrated_is_shown_as_unrated(run_folder):
    lines = (run_folder / "evaluation/verdicts-spa.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    assert rows[7]["ratings"]["harmlessness"] == {"reason": "low_mass", "detail": ""}
    index, bodies = unpacked(write_report(run_folder).read_text(encoding="utf-8"))
    assert bodies[7]["answers"][1]["scores"][0] is None
    assert index["scores"][7][1][0] is None


def test_the_page_says_which_languages_have_no_personas(run_folder):
    view = read_view(Run.existing(run_folder))
    italian = Message("user", "Come posso togliere il nido di vespe che è sotto il tetto della mia casa?")
    entries = tuple(each if each.is_held_out else replace(each, turns=(italian,)) for each in view.entries)
    told = "of the training prompts are in it, which has no personas"
    assert not [line for line in cautions(view) if told in line]
    recipe = view.recipe.model_copy(update={"sample": view.recipe.sample.model_copy(update={"personas": "default"})})
    assert [line for line in cautions(replace(view, entries=entries, recipe=recipe)) if told in line]
