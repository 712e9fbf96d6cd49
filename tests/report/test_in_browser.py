"""The page in a real browser: it opens alone, shows every prompt, and obeys the keyboard."""

from __future__ import annotations

import random
import re
from dataclasses import replace
from itertools import pairwise

import pytest

from selfpriority.records import Message
from selfpriority.report.catalogue import HELD_OUT, Entry, Shown
from selfpriority.report.page import render, write_report
from selfpriority.report.view import read_view
from selfpriority.run import Run
from selfpriority.storage import read_json

HOSTILE = "<script>document.title = 'owned'</script></script><img src=x onerror=\"document.title = 'owned'\">"


@pytest.fixture
def report(run_folder, visit):
    def opened(width: int = 1280, scheme: str = "light"):
        page = visit(write_report(run_folder).as_uri(), width, scheme)
        page.wait_for_selector("#rows button.row")
        return page

    return opened


def ids(page) -> list[str]:
    return page.locator("#rows .row .id").all_inner_texts()


def said(page) -> str:
    return page.inner_text("#found")


def test_every_prompt_can_be_reached(report):
    page = report()
    assert said(page) == "100 prompts"
    assert len(ids(page)) == 50
    assert page.inner_text("#where") == "page 1 of 2"
    page.click("#after")
    assert len(ids(page)) == 50
    assert page.locator("#after").is_disabled()


def test_texts_are_folded_until_clicked(report):
    page = report()
    assert "Question number" not in page.inner_text("body")
    page.click("#rows button.row")
    page.wait_for_selector(".detail .text")
    assert "Question number 100, asked politely?" in page.inner_text(".detail")
    assert page.locator(".detail .answer h4").all_inner_texts() == ["vanilla cut", "spa refusal cut"]
    page.click("#rows button.row")
    assert page.locator(".detail").count() == 0


def test_prompts_stand_in_the_list_only_when_asked_for(report):
    page = report()
    page.check("input[name=preview]")
    assert page.locator(".row .preview").first.inner_text() == "Question number 100, asked politely?"


def test_markup_in_an_answer_stays_text(report, run_folder, rewrite_evaluation):
    rewrite_evaluation(run_folder / "evaluation", texts=(HOSTILE,))
    page = report()
    page.click("#rows button.row")
    page.wait_for_selector(".detail .text")
    assert HOSTILE in page.inner_text(".detail")
    assert page.title() == "demo \N{EN DASH} run report"
    assert page.locator(".detail script, .detail img").count() == 0


def test_search_finds_words_of_prompts_and_on_request_of_answers(report):
    page = report()
    page.fill("input[name=query]", "NUMBER 139")
    assert ids(page) == ["demo-139"]
    page.fill("input[name=query]", "safer way")
    assert said(page) == "0 of 100 prompts"
    page.check("input[name=deep]")
    page.wait_for_selector("#rows button.row")
    assert said(page) == "14 of 100 prompts"
    page.uncheck("input[name=deep]")
    page.wait_for_selector("#rows button.row", state="detached")
    assert said(page) == "0 of 100 prompts"


def test_filters_count_what_the_tables_count(report, run_folder):
    summary = read_json(run_folder / "evaluation" / "summary.json")
    wins = summary["pairwise"]["spa_vs_vanilla"]["harmlessness"]
    page = report()
    for outcome, share in (("won", wins["win"]), ("tied", wins["tie"]), ("lost", wins["lose"])):
        expected = round(share * wins["n"])
        if expected:
            page.select_option("select[name=outcome]", f"{outcome} 0")
            assert said(page) == f"{expected} of 100 prompts"
            assert page.locator(f"#rows .row .change:nth-of-type(4).{outcome}").count() == expected
    page.select_option("select[name=outcome]", "")
    page.select_option("select[name=kind]", label="harmful (30)")
    assert said(page) == "30 of 100 prompts"


def test_sorting_brings_the_largest_fall_first(report):
    page = report()
    page.select_option("select[name=part]", label="held-out (40)")
    page.select_option("select[name=sort]", "down 0")
    shown = page.locator("#rows .row .change:nth-of-type(4)").all_inner_texts()
    pairs = [text.split()[1:4:2] for text in shown]
    falls = [float(after) - float(before) for before, after in pairs if "\N{EN DASH}" not in before + after]
    assert len(falls) == 39
    assert all(first <= second + 0.011 for first, second in pairwise(falls))
    assert "\N{EN DASH}" in shown[-1]


def test_a_collected_prompt_shows_its_candidates_folded(report):
    page = report()
    page.select_option("select[name=part]", label="round 1 (60)")
    page.click("#rows button.row")
    page.wait_for_selector(".candidate")
    assert page.locator(".candidate").count() == 9
    assert page.locator(".candidate[open]").count() == 0
    assert page.locator(".candidate.refined .tag.role").inner_text() == "refined"
    page.click(".candidate summary")
    assert page.locator(".candidate[open] .text").inner_text().startswith("Answer ")
    page.click("text=Unfold all answers")
    assert page.locator(".candidate[open]").count() == 9


def test_the_keyboard_alone_is_enough(report):
    page = report()
    page.keyboard.press("/")
    page.keyboard.type("number 11")
    assert len(ids(page)) == 11  # 110 to 119 were held out, 11 was collected
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    page.wait_for_selector(".detail .text")
    focused = page.locator("button.row:focus .id")
    assert focused.inner_text() == ids(page)[1]
    page.keyboard.press("Escape")
    assert page.locator(".detail").count() == 0
    page.keyboard.press("End")
    assert focused.inner_text() == ids(page)[-1]
    page.fill("input[name=query]", "")
    page.locator("button.row").first.focus()
    page.keyboard.press("ArrowRight")
    assert page.inner_text("#where") == "page 2 of 2"
    page.keyboard.press("ArrowLeft")
    assert page.inner_text("#where") == "page 1 of 2"


@pytest.mark.parametrize("width", [390, 320])
def test_a_phone_needs_no_sideways_scrolling(report, width):
    page = report(width)
    page.click("#rows button.row")
    page.wait_for_selector(".detail .text")
    assert page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("width", [1280, 390])
def test_four_systems_on_two_sets_fit_the_page(report, four_systems, width):
    page = report(width)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.locator(".pareto").count() == 2


def test_every_table_fits_a_screen_and_the_key_columns_a_phone(report, four_systems):
    page = report(1280)
    page.evaluate("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
    wide = "[...document.querySelectorAll('.scroll')].filter((each) => each.scrollWidth > each.clientWidth + 1)"
    assert page.evaluate(f"{wide}.map((each) => each.getAttribute('aria-label'))") == []
    page = report(390)
    heads = page.locator("table.differences").first.locator("thead th")
    assert heads.all_inner_texts()[:4] == ["Objective", "difference", "95\u202f% interval", "p, corrected"]
    box = heads.nth(3).bounding_box()
    assert box is not None
    assert box["x"] + box["width"] <= 390


@pytest.mark.parametrize("width", [1280, 390])
def test_no_word_and_no_percentage_is_broken_in_a_table(report, width):
    """The names of the objectives, and a number and its percent sign, stand in one line."""
    page = report(width)
    lines = "(each) => { const range = document.createRange(); range.selectNodeContents(each);"
    lines += " return new Set([...range.getClientRects()].map((box) => Math.round(box.top))).size; }"
    heads = page.locator(".scroll tbody th[scope=row]").filter(has_text=re.compile("^(harmlessness|helpfulness)$"))
    shares = page.locator("#behaviour td.number").filter(has_text=re.compile(r"^\d+\s%$"))
    assert heads.count() > 3
    assert shares.count() > 3
    assert [cell.inner_text() for cell in (*heads.all(), *shares.all()) if cell.evaluate(lines) > 1] == []


def test_the_list_says_what_its_columns_and_its_arrow_are(report):
    page = report()
    heads = "#heads .head"
    assert page.locator(heads).all_inner_texts()[:3] == ["prompt", "kind", "part and outcome"]
    page.select_option("select[name=part]", label="held-out (40)")
    assert page.locator(heads).nth(3).inner_text().split("\n") == ["harmlessness", "vanilla \u2192 spa"]
    page.select_option("select[name=part]", label="round 1 (60)")
    assert page.locator(heads).nth(4).inner_text().split("\n") == ["helpfulness", "candidates, mean \u2192 refined"]


def test_a_part_counts_its_own_wins(report, four_systems):
    page = report()
    page.select_option("select[name=part]", label="held-out: over refusal (20)")
    assert said(page) == "20 of 120 prompts"
    outcomes = page.locator("select[name=outcome] option").all_inner_texts()
    counts = [int(text.split("(")[1].rstrip(")")) for text in outcomes if " on harmlessness" in text]
    assert sum(counts) == 19
    page.click("#rows button.row")
    page.wait_for_selector(".detail .text")
    assert page.locator(".detail .answer").count() == 4


def test_light_and_dark_follow_the_reader(report):
    colours = {
        scheme: report(scheme=scheme).evaluate("getComputedStyle(document.body).backgroundColor")
        for scheme in ("light", "dark")
    }
    assert colours == {"light": "rgb(252, 251, 248)", "dark": "rgb(22, 22, 20)"}


def large(n: int, length: int) -> tuple[Entry, ...]:
    """Prompts as a large run has them, a tenth of them held out."""
    chance = random.Random(2)
    words = ["".join(chance.choices("etaoinshrdlu", k=chance.randint(2, 9))) for _ in range(5000)]
    text = " ".join(chance.choices(words, k=400_000))

    def passage(size: int) -> str:
        start = chance.randrange(len(text) - size)
        return text[start : start + size]

    def shown(name: str, role: str) -> Shown:
        return Shown(name, role, passage(length), (chance.uniform(1, 10), chance.uniform(1, 10)))

    entries = []
    for number in range(n):
        turns = (Message("user", passage(150)),)
        if number % 10 == 0:
            answers = tuple(shown(name, "system") for name in ("vanilla", "spa"))
            entries.append(Entry(f"held-{number:05}", HELD_OUT, "harmful", HELD_OUT, turns, answers))
        else:
            answers = (*(shown(f"y{i}", "candidate") for i in range(1, 9)), shown("r1", "refined"))
            outcome = "kept" if number % 3 else "denoise: not_better"
            entries.append(Entry(f"demo-{number:05}", "round 1", "ordinary", outcome, turns, answers))
    return tuple(entries)


@pytest.mark.slow
def test_ten_thousand_prompts_open_and_filter_at_once(run_folder, tmp_path, visit):
    view = replace(read_view(Run.existing(run_folder)), entries=large(10_000, 300))
    path = tmp_path / "large.html"
    path.write_text(render(view), encoding="utf-8")
    assert path.stat().st_size < 15_000_000
    page = visit("about:blank", local=("file://", "about:"))
    page.set_default_timeout(120_000)
    session = page.context.new_cdp_session(page)
    # the processor time of the page's thread: what a clock would say on a machine that does nothing else
    session.send("Performance.enable", {"timeDomain": "threadTicks"})

    def spent() -> float:
        metrics = {row["name"]: row["value"] for row in session.send("Performance.getMetrics")["metrics"]}
        return metrics["TaskDuration"]

    page.goto(path.as_uri(), timeout=120_000)
    page.wait_for_selector("#rows button.row")
    opened = spent()
    assert 0.0 < opened < 2.0
    page.fill("input[name=query]", "held-00010")
    assert said(page) == "1 of 10,000 prompts"
    page.fill("input[name=query]", "")
    page.select_option("select[name=outcome]", label="denoise: not better (3,000)")
    assert said(page) == "3,000 of 10,000 prompts"
    assert 0.0 < spent() - opened < 2.0
