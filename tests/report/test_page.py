"""The page: what it says, what it never loads, and that nothing in an answer becomes markup."""

import base64
import hashlib
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest

from selfpriority.errors import InputError
from selfpriority.report.page import clean, headline, write_report
from selfpriority.report.rows import read_view
from selfpriority.run import Run, read_json, write_json

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
    said = f"spa against vanilla: harmlessness rose by {change['mean']:.2f} (95 % interval"
    assert f"On 40 held-out prompts, {said}" in shown.text
    ids = [attrs["id"] for _, attrs in shown.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    assert {"result", "behaviour", "judges", "rounds", "answers", "settings"} <= set(ids)
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


def test_markup_and_control_codes_in_an_answer_stay_text(run_folder, rewrite_evaluation):
    hostile = (
        "<script>alert('x')</script>",
        "</details></main><img src=x onerror=alert(1)>",
        "red \x1b[31malert\x1b[0m and \x1b]0;title\x07bell\x00 and \u202eback",
    )
    rewrite_evaluation(run_folder / "evaluation", texts=hostile)
    html = write_report(run_folder).read_text(encoding="utf-8")
    shown = Page(html)
    assert [tag for tag, _ in shown.tags].count("script") == 1
    assert "img" not in {tag for tag, _ in shown.tags}
    assert "<script>alert('x')</script>" in shown.text
    assert "&lt;script&gt;alert" in html
    assert "red alert and bell and back" in shown.text
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", html)
    assert not any(name.startswith("on") for _, attrs in shown.tags for name in attrs)


def test_the_policy_of_the_page_allows_only_its_own_script(run_folder):
    shown = page(run_folder)
    script = next(data for tag, data in shown.words if tag == "script")
    policy = next(attrs["content"] for _, attrs in shown.tags if attrs.get("http-equiv"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy


def test_texts_are_folded_until_opened(run_folder):
    shown = page(run_folder)
    exchanges = [attrs for tag, attrs in shown.tags if tag == "details" and attrs.get("class") == "exchange"]
    assert len(exchanges) == 40
    assert not any("open" in attrs for attrs in exchanges)
    html = (run_folder / "report.html").read_text(encoding="utf-8")
    for summary in re.findall(r"<summary>.*?</summary>", html, flags=re.DOTALL):
        assert "Question number" not in summary


def test_more_answers_than_fit_are_spaced_evenly_and_said_so(run_folder, rewrite_evaluation):
    rewrite_evaluation(run_folder / "evaluation", n=80)
    view = read_view(Run.existing(run_folder))
    assert [exchange.prompt_id for exchange in view.exchanges[:3]] == ["demo-100", "demo-102", "demo-104"]
    assert "40 of 80 held-out prompts" in page(run_folder).text


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


def test_a_training_line_that_is_being_written_is_left_out(run_folder):
    with (run_folder / "round-1" / "training.jsonl").open("a") as file:
        file.write('{"step": 37, "lo')
    assert len(read_view(Run.existing(run_folder)).rounds[0].training) == 36


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(InputError, match="no run directory"):
        write_report(tmp_path)


def test_headline_claims_no_more_than_the_interval(run_folder):
    path = run_folder / "evaluation" / "summary.json"
    summary = read_json(path)
    row = {"p": 0.5, "n": 40}
    summary["difference"]["spa_vs_vanilla"] |= {
        "harmlessness": {"mean": -0.5, "low": -0.9, "high": -0.1, **row},
        "helpfulness": {"mean": 0.2, "low": -0.1, "high": 0.5, **row},
    }
    write_json(path, summary)
    said = headline(read_view(Run.existing(run_folder)))
    assert "harmlessness fell by 0.50 (95\u2009% interval \u22120.90 to \u22120.10)" in said
    assert "helpfulness shows no clear change (+0.20, 95\u2009% interval \u22120.10 to +0.50 includes 0)" in said


def test_cautions_name_weak_judges_small_samples_and_more_refusals(run_folder):
    judges = read_json(run_folder / "judge.json")
    judges["evaluate"] = judges["words"]
    write_json(run_folder / "judge.json", judges)
    shown = page(run_folder).text
    assert "The evaluation judge could not be shown to be better than chance." in shown
    assert "40 prompts are a small sample" in shown
    assert "Refusals of harmful prompts rose from 0 % to" in shown
    assert "a linear head on a small model's hidden states" in shown


def test_one_deciding_objective_is_pointed_out(run_folder):
    path = run_folder / "round-1" / "funnel.json"
    funnel = read_json(path)
    funnel["pairs"]["decided_by"] = {"harmlessness": 400, "helpfulness": 12}
    write_json(path, funnel)
    assert "harmlessness decided nearly every pair" in page(run_folder).text


def test_clean_keeps_lines_and_letters():
    assert clean("a\n\tb é 漢 🙂\r\x07\x9b") == "a\n\tb é 漢 🙂"


def test_unrated_is_shown_as_unrated(run_folder):
    lines = (run_folder / "evaluation/verdicts-spa.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    assert rows[7]["ratings"]["harmlessness"] == {"reason": "low_mass", "detail": ""}
    assert "harmlessness unrated" in page(run_folder).text
