"""Two runs side by side: what differs is named, and ratings are compared only where one judge gave them."""

import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from selfpriority.evaluation.records import JudgeName
from selfpriority.evaluation.significance import corrected, difference
from selfpriority.evaluation.summary_file import read_summary, write_summary
from selfpriority.evaluation.wins import wins, won_or_lost
from selfpriority.recipe import Recipe
from selfpriority.report.diff import RecipeRow, changes, compare, counted_wins, diff_headline, recipe_rows, write_diff
from selfpriority.report.tables import mean_words
from selfpriority.run import Run
from selfpriority.storage import read_json, write_json, write_text


@pytest.fixture
def other_folder(run_folder, tmp_path) -> Path:
    """The same run with another seed, whose policy is rated one point better on the first objective."""
    folder = tmp_path / "other"
    shutil.copytree(run_folder, folder)
    write_json(folder / "manifest.json", read_json(folder / "manifest.json") | {"name": "other"})
    set_field(folder, "seed: 0", "seed: 1")
    path = folder / "evaluation" / "verdicts-spa.jsonl"
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    for row in rows:
        rating = row["ratings"]["harmlessness"]
        if "value" in rating:
            rating["value"] += 1.0
    write_text(path, (json.dumps(row) + "\n" for row in rows))
    return folder


def only(told):
    """What is said of the one contest of two runs."""
    (cells,) = told.values()
    return cells


def set_field(folder: Path, old: str, new: str) -> None:
    path = folder / "resolved.yaml"
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


def rated_by(folder: Path, key: str | None) -> None:
    path = folder / "evaluation" / "summary.json"
    judge = JudgeName("demo-evaluate", "probe", key) if key else None
    write_summary(path, replace(read_summary(path), judge=judge))


def test_policies_are_compared_on_shared_prompts_by_the_same_judge(run_folder, other_folder):
    found = compare(Run.existing(run_folder), Run.existing(other_folder))
    assert found.labels == ("demo", "other")
    assert found.doubt == ""
    assert len(found.shared) == 40
    assert [answer.name for answer in found.shared[0].answers] == ["vanilla", "demo", "other"]
    told = only(changes(found))
    assert told["harmlessness"].mean == pytest.approx(1.0)
    assert (told["harmlessness"].n, told["helpfulness"].mean) == (39, 0.0)
    assert diff_headline(found) == (
        "On 40 shared held-out prompts, other against demo: harmlessness rose by 1.00; "
        "helpfulness shows no clear change."
    )


def shift(folder: Path, gains: list[float]) -> None:
    """The policy's ratings on both objectives become 5 plus a gain, prompt by prompt."""
    path = folder / "evaluation" / "verdicts-spa.jsonl"
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    for row, gain in zip(rows, gains, strict=True):
        row["ratings"] = {name: {"value": 5.0 + gain} for name in row["ratings"]}
    write_text(path, (json.dumps(row) + "\n" for row in rows))


def test_two_runs_are_tested_as_two_systems_of_one_are(run_folder, other_folder):
    ups, downs = [1.0] * 13, [-1.0] * 4
    shift(run_folder, [0.0] * 40)
    shift(other_folder, ups + downs + [0.2] * 23)
    found = compare(Run.existing(run_folder), Run.existing(other_folder))
    objectives = ("harmlessness", "helpfulness")
    paired = {str(i): (gain, 0.0) for i, gain in enumerate(ups + downs + [0.2] * 23)}
    whole = corrected({name: difference(paired, 0.0) for name in objectives})
    assert {name: pytest.approx(asdict(cell)) for name, cell in whole.items()} == {
        name: asdict(cell) for name, cell in only(changes(found)).items()
    }
    assert only(changes(found))["harmlessness"].p_holm == pytest.approx(2 * only(changes(found))["harmlessness"].p)
    cell = corrected({name: wins(won_or_lost(paired, 0.5)) for name in objectives})["harmlessness"]
    row = counted_wins(found)[0]
    assert (row.contest.a, row.contest.b, row.wins.n, row.words) == ("other", "demo", 40, "+0.0")
    assert {part.name: part.share for part in row.parts} == {"win": 13 / 40, "tie": 23 / 40, "lose": 4 / 40}
    low, high = cell.intervals["win"]
    assert row.parts[0].interval == f"{low:.0%} to {high:.0%}".replace("%", "\u202f%")
    assert (row.p, row.wins.significant) == (f"= {cell.p_holm:.3f}", False)
    assert 0.05 < cell.p_holm <= 0.1, "significant alone, not as one of two"
    page = write_diff([run_folder, other_folder]).read_text(encoding="utf-8")
    assert f"other against demo, 40 prompts, +0.0&nbsp;words, corrected p&nbsp;{row.p}</span>" in page
    assert "No win is clear once corrected for the number of comparisons." in page


def test_an_interval_without_zero_is_no_claim_where_the_corrected_p_doubts_it(run_folder, other_folder):
    shift(run_folder, [0.0] * 40)
    shift(other_folder, [1.0] * 13 + [-1.0] * 4 + [0.0] * 23)
    found = compare(Run.existing(run_folder), Run.existing(other_folder))
    told = only(changes(found))["harmlessness"]
    assert told.low > 0
    assert told.p < 0.05 < told.p_holm
    assert diff_headline(found).endswith("no clear change in harmlessness or helpfulness.")


def test_the_difference_in_length_is_that_of_the_prompts_compared(run_folder, other_folder):
    path = other_folder / "evaluation" / "answers-spa.jsonl"
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    rows[7]["response"]["text"] += " and so on" * 26  # 78 words more, on the one prompt without a first rating
    write_text(path, (json.dumps(row) + "\n" for row in rows))
    found = compare(Run.existing(run_folder), Run.existing(other_folder))
    assert [row.words for row in only(changes(found)).values()] == [0.0, pytest.approx(78 / 40)]
    assert [row.words for row in counted_wins(found)] == ["+0.0", "+1.9"]
    page = write_diff([run_folder, other_folder]).read_text(encoding="utf-8")
    assert '<td class="number">+1.9</td>' in page


def test_the_means_of_both_runs_stand_beside_the_length_of_the_answers(run_folder, other_folder):
    systems = read_summary(run_folder / "evaluation" / "summary.json").systems
    page = write_diff([run_folder, other_folder]).read_text(encoding="utf-8")
    for rows in systems.values():
        assert page.count(f'<td class="number">{mean_words(rows)}</td>') == 2


def test_a_prompt_is_shared_by_its_text_not_by_its_id(run_folder, other_folder):
    for path in (other_folder / "evaluation").glob("answers-*.jsonl"):
        path.write_text(
            path.read_text(encoding="utf-8").replace("number 100,", "number one hundred,"), encoding="utf-8"
        )
    found = compare(Run.existing(run_folder), Run.existing(other_folder))
    assert "demo-100" not in {entry.prompt_id for entry in found.shared}
    assert len(found.shared) == 39


def test_another_judge_means_no_comparison_of_ratings(run_folder, other_folder):
    set_field(other_folder, "demo-evaluate", "another-judge")
    rated_by(other_folder, "key of another-judge")
    found = compare(Run.existing(run_folder), Run.existing(other_folder))
    assert changes(found) == {}
    assert "rated by different judges" in diff_headline(found)
    page = write_diff([run_folder, other_folder]).read_text(encoding="utf-8")
    assert "another-judge" in page
    assert "Differences" not in page


def test_a_judge_of_the_same_name_elsewhere_is_another_judge(run_folder, other_folder):
    rated_by(other_folder, "key of demo-evaluate at another server")
    assert "rated by different judges" in diff_headline(compare(Run.existing(run_folder), Run.existing(other_folder)))
    rated_by(other_folder, None)
    assert "does not say which judge" in diff_headline(compare(Run.existing(run_folder), Run.existing(other_folder)))


def test_the_judge_decides_and_not_what_the_constitution_is_called(run_folder, other_folder):
    set_field(other_folder, "constitution: harmless-helpful", "constitution: /elsewhere/harmless-helpful")
    assert compare(Run.existing(run_folder), Run.existing(other_folder)).doubt == ""


def test_a_run_without_an_evaluation_is_still_shown(run_folder, other_folder):
    shutil.rmtree(other_folder / "evaluation")
    page = write_diff([run_folder, other_folder]).read_text(encoding="utf-8")
    assert "One of the two has no evaluation yet." in page
    assert "no evaluation yet</th>" in page


def test_recipe_differences_are_named_with_their_path():
    first = Recipe.model_validate({"model": "m", "prompts": "p.jsonl"})
    second = Recipe.model_validate(
        {"model": "m", "prompts": "p.jsonl", "align": {"beta": 3.0, "lora": {"r": 8}}, "evaluate": {"lambdas": [5]}}
    )
    rows = {row.field: row for row in recipe_rows(first, second)}
    assert rows["align.beta"] == RecipeRow("align.beta", ("2.5", "3.0"))
    assert rows["evaluate.lambdas"] == RecipeRow("evaluate.lambdas", ("[5.0, 10.0, 20.0]", "[5.0]"))
    assert rows["align.lora"] == RecipeRow("align.lora", ("null", "\N{EN DASH}"))
    assert rows["align.lora.r"] == RecipeRow("align.lora.r", ("\N{EN DASH}", "8"))
    assert {name.partition(".")[0] for name in rows} == {"align", "evaluate"}
    assert recipe_rows(first, first) == []


def test_the_page_lies_in_the_first_run_or_where_it_is_told_to(run_folder, other_folder, tmp_path):
    assert write_diff([run_folder, other_folder]) == run_folder / "against-other.html"
    assert write_diff([run_folder, other_folder], tmp_path / "page.html") == tmp_path / "page.html"
    assert (tmp_path / "page.html").is_file()


def test_runs_of_one_name_are_told_apart(run_folder, tmp_path):
    twin = tmp_path / "elsewhere" / "demo"
    shutil.copytree(run_folder, twin)
    labels = compare(Run.existing(run_folder), Run.existing(twin)).labels
    assert labels == (f"{tmp_path.name}/demo", "elsewhere/demo")
    assert compare(Run.existing(run_folder), Run.existing(run_folder)).labels == ("demo (first)", "demo (second)")


def test_any_number_of_runs_stand_side_by_side_against_the_first(run_folder, other_folder, tmp_path):
    third = tmp_path / "third"
    shutil.copytree(other_folder, third)
    write_json(third / "manifest.json", read_json(third / "manifest.json") | {"name": "third"})
    shift(run_folder, [0.0] * 40)
    shift(other_folder, [1.0] * 40)
    shift(third, [-1.0] * 40)
    found = compare(*map(Run.existing, (run_folder, other_folder, third)))
    assert found.labels == ("demo", "other", "third")
    assert [answer.name for answer in found.shared[0].answers] == ["vanilla", "demo", "other", "third"]
    told = changes(found)
    means = {contest.key: cells["harmlessness"].mean for contest, cells in told.items()}
    assert means == {"other_vs_demo": 1.0, "third_vs_demo": -1.0}
    four = [cell for cells in told.values() for cell in cells.values()]
    assert [cell.p_holm for cell in four] == [pytest.approx(4 * cell.p) for cell in four], "one family of four"
    assert diff_headline(found) == (
        "On 40 shared held-out prompts, against demo. other: harmlessness rose by 1.00; helpfulness rose by 1.00. "
        "third: harmlessness fell by 1.00; helpfulness fell by 1.00."
    )
    path = write_diff([run_folder, other_folder, third])
    assert path.name == "against-other-and-third.html"
    page = path.read_text(encoding="utf-8")
    assert "third minus demo, shared prompts" in page


def test_the_page_about_two_runs_works_in_a_browser(run_folder, other_folder, visit):
    page = visit(write_diff([run_folder, other_folder]).as_uri(), 390)
    page.wait_for_selector("#rows button.row")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert "Question number" not in page.inner_text("body")
    page.click("#rows button.row")
    page.wait_for_selector(".detail .answer")
    assert [head.split()[0] for head in page.locator(".detail .answer h4").all_inner_texts()] == [
        "vanilla",
        "demo",
        "other",
    ]
