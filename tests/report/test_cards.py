"""The card of a policy: what it says with and without results, and that it names no place on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from selfpriority.intervals import Interval
from selfpriority.judges.reports import JudgeChecks, JudgeReport, ObjectiveReport, write_checks
from selfpriority.models.public import hub_id, licence, public_name
from selfpriority.recipe import dump, parse
from selfpriority.report.cards import policy_card, write_policy_cards
from selfpriority.run import Funnel, PairCounts, Run, Step
from selfpriority.storage import write_text

HUB = "snapshots/0123abcd"


def a_run(folder: Path, **changes: Any) -> Run:
    run = Run(folder / "run")
    recipe = {
        "model": str(folder / "hub" / "models--some-org--some-model" / HUB),
        "prompts": {"source": str(folder / "mine" / "prompts.jsonl")},
        "sample": {"personas": str(folder / "mine" / "personas.yaml")},
        "score": {"judge": str(folder / "mine" / "heads"), "method": "probe"},
    }
    write_text(run.recipe, [dump(parse({**recipe, **changes}, "r.yaml"))])
    return run


def checked(run: Run, folder: Path, usable: bool) -> None:
    row = ObjectiveReport("harmlessness", auc=Interval(0.85, 0.8, 0.9, 96), n=96, unrated=0.25)
    why = () if usable else ("harmlessness: its interval includes 0.50",)
    write_checks(
        run.folder / "judge.json",
        JudgeChecks({"train": JudgeReport(usable, str(folder / "heads"), (row,), why, "probe")}),
    )


def front(card: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(card.split("---\n")[1])
    return found


def test_what_is_known_is_told_and_no_place(tmp_path: Path) -> None:
    run = a_run(tmp_path, align={"lora": {"r": 8}})
    checked(run, tmp_path, usable=True)
    run.round(1).mkdir()
    run.write_funnel(1, Funnel({}, PairCounts(n=40, decided_by={"harmlessness": 39, "helpfulness": 1}, trained=38)))
    write_text(run.evaluation / "table.md", ["| system | harmlessness |\n|---|---|\n| spa | 6.10 [5.80, 6.40] |\n"])
    card = policy_card(run, 1)
    assert front(card)["base_model"] == "some-org/some-model"
    assert (front(card)["library_name"], front(card)["license"]) == ("peft", "other")
    assert "| harmlessness | 0.85 [0.80, 0.90] | not measured | 25% |" in card
    assert "38 pairs (decided: 39 by harmlessness, 1 by helpfulness)." in card
    assert "| spa | 6.10 [5.80, 6.40] |" in card
    assert "An adapter (LoRA, rank 8) on some-org/some-model." in card
    assert "They may be harmful" in card
    assert "prompts: the file prompts.jsonl" in card
    assert str(tmp_path) not in card


def test_what_is_not_known_is_told_too(tmp_path: Path) -> None:
    run = a_run(tmp_path, rounds=2)
    assert "It was not checked." in policy_card(run, 2)
    checked(run, tmp_path, usable=False)
    card = policy_card(run, 2)
    assert "**Not shown to be better than chance**: harmlessness: its interval includes 0.50." in card
    assert "It was not evaluated" in card
    assert "Of the last round alone." in policy_card(run, 1)
    assert "which is not known on the machine that trained" in card


def test_a_card_is_no_content_of_a_policy(tmp_path: Path) -> None:
    """It is written again once there are results, and nobody trains again for it."""
    run = a_run(tmp_path)
    run.policy(1).mkdir(parents=True)
    (run.policy(1) / "model.safetensors").write_bytes(b"weights")
    step = Step("round-1/align", "key", (run.policy(1),))
    with run.recording(step):
        pass
    write_policy_cards(run)
    assert (run.policy(1) / "README.md").read_text("utf-8").startswith("---\n")
    assert run.is_done(step)
    (run.policy(1) / "README.md").write_text("mine")
    write_policy_cards(run)
    assert (run.policy(1) / "README.md").read_text("utf-8") == "mine"
    (run.policy(1) / "model.safetensors").write_bytes(b"others")
    assert not run.is_done(step)


def test_no_card_goes_where_a_link_leads(tmp_path: Path) -> None:
    run = a_run(tmp_path)
    run.round(1).mkdir()
    (tmp_path / "base").mkdir()
    run.policy(1).symlink_to(tmp_path / "base")
    write_policy_cards(run)
    assert list((tmp_path / "base").iterdir()) == []


@pytest.mark.parametrize(
    ("name", "public"),
    [
        ("smollm2-135m", "HuggingFaceTB/SmolLM2-135M-Instruct"),
        ("some/model", "some/model"),
        (f"/home/ann/.cache/hub/models--meta-llama--Llama-3/{HUB}", "meta-llama/Llama-3"),
        ("/home/ann/secret-project/my-model", "my-model (a local folder)"),
        ("demo-train", "demo-train"),
    ],
)
def test_public_names(name: str, public: str) -> None:
    assert public_name(name) == public
    assert (hub_id(name) is None) == ("/" not in public)


def test_the_licence_is_that_of_the_models_own_card(tmp_path: Path) -> None:
    assert licence(str(tmp_path)) is None
    (tmp_path / "README.md").write_text("---\nlicense: llama3.1\ntags: [a]\n---\n# A model\n")
    assert licence(str(tmp_path)) == "llama3.1"
    (tmp_path / "README.md").write_text("# A model without a head: [\n")
    assert licence(str(tmp_path)) is None
