"""The card of a policy: what it says with and without results, and that it names no place on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from selfpriority.evaluation.records import Summary
from selfpriority.evaluation.summary_file import write_summary
from selfpriority.intervals import Interval
from selfpriority.judges.reports import JudgeChecks, JudgeReport, ObjectiveReport, write_checks
from selfpriority.models.fingerprint import fingerprint
from selfpriority.models.public import hub_id, licence, public_name
from selfpriority.recipe import dump, parse
from selfpriority.report.cards import DataFacts, dataset_card, merged_card, policy_card, write_policy_cards
from selfpriority.run import Run
from selfpriority.run_records import Funnel, PairCounts, Step
from selfpriority.storage import write_json, write_text

HUB = "snapshots/0123abcd"


def a_run(folder: Path, at: str = "run", **changes: Any) -> Run:
    run = Run(folder / at)
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


def evaluated(run: Run, *systems: str, **models: str) -> None:
    """Leaves an evaluation of such systems, of models with such keys."""
    write_text(run.evaluation / "table.md", [*(f"| {system} | 6.10 [5.80, 6.40] |\n" for system in systems)])
    found = Summary(("a",), {name: {} for name in ("vanilla", *systems)}, {}, models=models)
    write_summary(run.evaluation / "summary.json", found)


def front(card: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(card.split("---\n")[1])
    return found


def test_what_is_known_is_told_and_no_place(tmp_path: Path) -> None:
    run = a_run(tmp_path, align={"lora": {"r": 8}})
    checked(run, tmp_path, usable=True)
    run.round(1).mkdir()
    run.write_funnel(1, Funnel({}, PairCounts(n=40, decided_by={"harmlessness": 39, "helpfulness": 1}, trained=38)))
    evaluated(run, "spa")
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


def two_stages(folder: Path, **align: Any) -> tuple[Run, Run]:
    """A run and its system `late`, which is trained from its system `early`."""
    systems = {"early": {"train": {"align": {"method": "sft"}}}, "late": {"start": "early", "train": {"pair": {}}}}
    run = a_run(folder, evaluate={"more_systems": systems}, align=align)
    early = a_run(folder, "run/systems/early", align={**align, "method": "sft"})
    return run, a_run(folder, "run/systems/late", align={**align, "start": str(early.policy(1))})


def test_the_card_of_a_system_tells_what_its_run_found(tmp_path: Path) -> None:
    run, late = two_stages(tmp_path)
    late.policy(1).mkdir(parents=True)
    assert "It was not checked." in policy_card(late, 1)
    checked(run, tmp_path, usable=True)
    evaluated(run, "spa")
    assert "It was not evaluated: " in policy_card(late, 1)
    evaluated(run, "spa", "late")
    write_policy_cards(run)
    card = (late.policy(1) / "README.md").read_text("utf-8")
    assert "| harmlessness | 0.85" in card
    assert "`late` is this model and `vanilla` is some-org/some-model." in card
    assert "| late | 6.10" in card
    facts = DataFacts("pairs.jsonl", 3, 0, keeps_cut=False)
    assert "| harmlessness | 0.85" in dataset_card(late, facts)


@pytest.mark.parametrize("align", [{}, {"lora": {"r": 8}}])
def test_a_card_says_what_was_trained_and_not_where_that_lies(tmp_path: Path, align: dict[str, Any]) -> None:
    run, late = two_stages(tmp_path, **align)
    told = policy_card(late, 1)
    assert "some-org/some-model sampled answers to prompts" in told
    assert "the system `early` was trained on the pairs" in told
    assert "start: the system `early`" in told
    assert front(told)["base_model"] == "some-org/some-model"
    assert ("An adapter (LoRA, rank 8) on the system `early`." in told) == bool(align)
    facts = DataFacts("pairs.jsonl", 3, 0, keeps_cut=False)
    elsewhere = a_run(tmp_path, "elsewhere", align={**align, "start": str(tmp_path / "mine" / "helpful")})
    for card in (told, dataset_card(late, facts), policy_card(elsewhere, 1), dataset_card(elsewhere, facts)):
        assert str(tmp_path) not in card
    assert "helpful (a local folder) was trained on the pairs" in policy_card(elsewhere, 1)
    assert "base_model" not in front(policy_card(elsewhere, 1))
    assert "start: null" in policy_card(run, 1)


def test_a_card_says_in_which_order_a_control_was_trained(tmp_path: Path) -> None:
    card = policy_card(a_run(tmp_path, pair={"order": "swapped"}), 1)
    assert "strict order" not in card
    assert "its pairs follow another order: `swapped`." in card


@pytest.mark.parametrize(
    ("key", "told"),
    [(None, "cannot be told"), ("of-others", "It was not evaluated since it was trained"), ("", "`spa` is this model")],
)
def test_results_are_of_these_very_weights(tmp_path: Path, key: str | None, told: str) -> None:
    run = a_run(tmp_path)
    run.policy(1).mkdir(parents=True)
    (run.policy(1) / "model.safetensors").write_bytes(b"weights")
    key = fingerprint(str(run.policy(1))) if key == "" else key
    evaluated(run, "spa", **({} if key is None else {"spa": key}))
    card = policy_card(run, 1)
    assert told in card
    assert ("| spa | 6.10" in card) == (key != "of-others")


def test_results_of_an_adapter_without_its_base_here_stay(tmp_path: Path) -> None:
    """Its key is another one where the base is away."""
    run = a_run(tmp_path, align={"lora": {"r": 8}})
    run.policy(1).mkdir(parents=True)
    write_json(run.policy(1) / "adapter_config.json", {"base_model_name_or_path": "some-org/not-here"})
    evaluated(run, "spa", spa="with the base")
    assert "| spa | 6.10" in policy_card(run, 1)


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


def test_a_merged_system_has_a_card_of_its_own(tmp_path: Path) -> None:
    systems = {
        "swapped": {"train": {"pair": {"order": "swapped"}}},
        "soup": {"merge": {"spa": 0.6, "swapped": 0.4}},
    }
    run = a_run(tmp_path, evaluate={"more_systems": systems})
    checked(run, tmp_path, usable=True)
    evaluated(run, "soup")
    folder = run.folder / "merged" / "soup"
    folder.mkdir(parents=True)
    write_policy_cards(run)
    card = (folder / "README.md").read_text("utf-8")
    assert card == merged_card(run, "soup")
    assert front(card)["base_model"] == "some-org/some-model"
    assert "merge" in front(card)["tags"]
    assert "0.6 of what `spa` learned and 0.4 of what `swapped` learned" in card
    assert "- `swapped`: as the recipe below says, but for pair.order: swapped" in card
    assert "| soup | 6.10 [5.80, 6.40] |" in card
    assert str(tmp_path) not in card
    (folder / "README.md").write_text("mine")
    write_policy_cards(run)
    assert (folder / "README.md").read_text("utf-8") == "mine"
