"""Systems by name: those that ship, a user's own files, and what one needs of others."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml

from selfpriority import recipe
from selfpriority.constitution import load_constitution
from selfpriority.errors import InputError
from selfpriority.phases.recipe_paths import with_absolute_paths
from selfpriority.recipe import Align, OtherSystem, Recipe, branch_of, check_merges, in_order, trained_systems
from selfpriority.recipe.named import SHIPPED, read_system, shipped_systems, with_named
from selfpriority.shipped import system_lines
from tests.test_own_python import tidy  # noqa: F401 - a fixture

RECIPES = Path(__file__).parent.parent / "recipes"
NAMES = load_constitution("harmless-helpful").names
ABLATIONS = {"without_consistency", "without_informativeness", "without_denoising"}
ORDERED = {"pair": {"order": "swapped"}}


def asking(folder: Path, *systems: str, **more: object) -> Recipe:
    """A recipe in `folder` that asks for systems, and has those of `more`."""
    evaluate = {"systems": list(systems), "more_systems": more}
    given = Recipe.model_validate({"model": "some/model", "prompts": "p.jsonl", "evaluate": evaluate})
    return with_absolute_paths(given, folder)


def write(folder: Path, name: str, **fields: object) -> str:
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump({"title": f"what {name} is", "source": "a test", **fields}))
    return f"./{name}.yaml"


@pytest.mark.parametrize("of", ["demo", "llama-3.1-8b-saferlhf", "mistral-7b-honeset-8gpu"])
def test_every_shipped_system_can_be_trained_by_shipped_recipes(of: str) -> None:
    found = with_absolute_paths(recipe.load(RECIPES / f"{of}.yaml", ["evaluate.systems=[all]"]), RECIPES)
    absent = set() if find_spec("trl") else {"online_grpo", "online_grpo_sum"}
    assert {*found.evaluate.more_systems, "vanilla", "spa", *ABLATIONS, *absent} == set(shipped_systems())
    assert not absent & found.evaluate.more_systems.keys()
    unasked = {name for name, system in found.evaluate.more_systems.items() if not system.evaluated}
    assert unasked == {"dpo_first", "dpo_last", "sacpo_far", "sacpo_far_reversed"}  # parts of SACPO alone
    check_merges(found)
    own = branch_of(found, {"pair": {}}, of)
    for name in in_order(found):
        theirs = branch_of(found, found.evaluate.more_systems[name].train, name)
        assert theirs.align.strange_beta is None
        assert theirs != own, f"{name} differs in nothing"


def test_ablations_leave_out_a_part_each() -> None:
    found = with_absolute_paths(
        recipe.load(RECIPES / "llama-3.1-8b-saferlhf.yaml", ["evaluate.systems=[ablations]"]), RECIPES
    )
    assert set(found.evaluate.more_systems) == ABLATIONS
    denoise = {name: branch_of(found, found.evaluate.more_systems[name].train, name).denoise for name in ABLATIONS}
    assert found.denoise.consistency == "strict"
    assert found.denoise.keep_lowest is not None
    assert found.denoise.keep_lowest < 1
    assert {name: (each.consistency, each.keep_lowest) for name, each in denoise.items()} == {
        "without_consistency": ("off", found.denoise.keep_lowest),
        "without_informativeness": ("strict", 1.0),
        "without_denoising": ("off", 1.0),
    }


def test_reward_soups_and_sacpo_are_what_their_papers_say(tmp_path: Path) -> None:
    asked = ("soup_7_3", "sacpo", "sacpo_reversed", "psacpo_25", "psacpo_reversed_75", "mix_9_1")
    found = asking(tmp_path, *asked)
    systems, trained = found.evaluate.more_systems, in_order(found)
    assert systems["soup_7_3"].merge == {"only_first": 0.7, "only_last": 0.3}
    by_name = {name: branch_of(found, systems[name].train, name) for name in trained}
    orders = {name: theirs.pair.order for name, theirs in by_name.items()}
    first, last = "only:harmlessness", "only:helpfulness"
    assert orders == {
        "only_first": first, "only_last": last, "dpo_first": first, "dpo_last": last, "sacpo": first,
        "sacpo_reversed": last, "sacpo_far": first, "sacpo_far_reversed": last, "mix_9_1": "mix:9,1",
    }  # fmt: skip
    starts = {name: systems[name].start for name in trained if systems[name].start}
    assert starts == {
        "sacpo": "dpo_last", "sacpo_far": "dpo_last", "sacpo_reversed": "dpo_first", "sacpo_far_reversed": "dpo_first",
    }  # fmt: skip
    assert systems["psacpo_25"].merge == {"dpo_last": 0.75, "sacpo_far": 0.25}
    assert systems["psacpo_reversed_75"].merge == {"dpo_first": 0.25, "sacpo_far_reversed": 0.75}
    stages = ("dpo_last", "sacpo", "sacpo_far", "sacpo_far_reversed")
    assert [by_name[name].align.beta for name in stages] == [0.1, 0.1, 0.01, 0.01]
    assert {by_name[name].align.gap_exponent for name in starts} == {0.0}
    shown = [name for name, system in systems.items() if system.evaluated]
    assert sorted(shown) == sorted(asked)
    assert asking(tmp_path, "sacpo", "dpo_last").evaluate.more_systems["dpo_last"].evaluated
    for of in ("6_4", "7_3", "8_2", "9_1"):
        primary, secondary = (int(part) / 10 for part in of.split("_"))
        assert read_system(SHIPPED / f"soup_{of}.yaml", NAMES).merge == {"only_first": primary, "only_last": secondary}


def test_each_has_a_line(tmp_path: Path) -> None:
    lines = system_lines().splitlines()
    assert [line.split()[0] for line in lines] == shipped_systems()
    assert {"vanilla", "constitution", "sft", "spa", "spa_simpo", "spa_dpo", "ipo", "swapped", "sum"} <= {
        line.split()[0] for line in lines
    }
    assert "{first}" not in read_system(SHIPPED / "swapped.yaml", NAMES).model_dump_json()


def test_a_run_keeps_what_a_name_meant(tmp_path: Path) -> None:
    found = asking(tmp_path, "spa_dpo", "vanilla", "spa", "constitution")
    assert found.evaluate.systems == ()
    assert list(found.evaluate.more_systems) == ["spa_dpo", "constitution"]
    assert found.evaluate.more_systems["spa_dpo"].train == {"align": {"method": "dpo"}}
    assert with_absolute_paths(found, tmp_path) == found
    assert "start" not in Align(start="x").in_result  # finished trainings keep their keys


def test_a_file_of_ones_own_lies_beside_the_recipe_and_names_objectives_by_rank(tmp_path: Path) -> None:
    mine = write(tmp_path, "mine", train={"pair": {"order": "swapped"}, "align": {"report_to": ["{first}", "{last}"]}})
    (system,) = asking(tmp_path, mine).evaluate.more_systems.values()
    assert system.train["align"]["report_to"] == ["harmlessness", "helpfulness"]
    assert (system.title, system.evaluated) == ("what mine is", True)


def test_what_a_system_needs_is_trained_and_evaluated_only_where_it_is_asked_for(tmp_path: Path) -> None:
    write(tmp_path, "first", train=ORDERED)
    write(tmp_path, "second", train=ORDERED, start="first")
    both = write(tmp_path, "both", merge={"second": 0.25, "first": 0.75})
    found = asking(tmp_path, both)
    assert list(found.evaluate.more_systems) == ["first", "second", "both"]
    assert [system.evaluated for system in found.evaluate.more_systems.values()] == [False, False, True]
    assert in_order(found) == trained_systems(found) == ["first", "second"]
    asked = asking(tmp_path, both, "./first.yaml").evaluate.more_systems
    assert [system.evaluated for system in asked.values()] == [True, False, True]
    own = OtherSystem(train={"pair": {"order": "sum"}}).model_dump()
    assert asking(tmp_path, both, first=own).evaluate.more_systems["first"].train == {"pair": {"order": "sum"}}


def test_the_order_of_training_follows_what_each_starts_from(tmp_path: Path) -> None:
    chain = {"c": {"train": ORDERED, "start": "b"}, "b": {"train": ORDERED, "start": "a"}, "a": {"train": ORDERED}}
    assert in_order(asking(tmp_path, **chain)) == ["a", "b", "c"]
    assert in_order(asking(tmp_path, after={"train": ORDERED, "start": "spa"})) == ["after"]


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"a": {"train": ORDERED, "start": "b"}, "b": {"train": ORDERED, "start": "a"}}, "starts from b itself"),
        ({"a": {"train": ORDERED, "start": "a"}}, "'a' starts from a itself"),
        ({"a": {"train": ORDERED, "start": "vanilla"}}, "'vanilla' is not trained by this run; it trains spa, a"),
        ({"a": {"merge": {"b": 1.0}}, "b": {"how": "constitution"}}, "a.merge: 'b' is not trained by this run"),
    ],
)
def test_a_system_that_needs_what_is_never_there_is_told(tmp_path: Path, more: dict[str, object], told: str) -> None:
    with pytest.raises(InputError, match=told):
        check_merges(found := asking(tmp_path, **more)) or in_order(found)


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ("spa_dop", "'spa_dop' is neither a shipped system nor a file; did you mean spa_dpo?"),
        ("./none.yaml", "'./none.yaml' is neither a shipped system nor a file"),
        ("./My-System.yaml", "a file is called by its system: a-z, 0-9 and _, then .yaml"),
        ("./list.yaml", "a system is a mapping of fields, this is list"),
        ("./odd.yaml", "odd.yaml: trian: unknown field; did you mean train?"),
        ("./two.yaml", "set merge alone, without model or train"),
    ],
)
def test_a_wrong_name_or_file_is_one_line(tmp_path: Path, asked: str, told: str) -> None:
    (tmp_path / "list.yaml").write_text("- 1\n")
    write(tmp_path, "odd", trian=ORDERED)
    write(tmp_path, "two", train=ORDERED, merge={"spa": 1.0})
    with pytest.raises(InputError) as caught:
        asking(tmp_path, asked)
    assert told in str(caught.value)
    assert len(caught.value.lines) == 1


def test_files_that_need_each_other_are_no_endless_way(tmp_path: Path) -> None:
    write(tmp_path, "a", train=ORDERED, start="b")
    b = write(tmp_path, "b", train=ORDERED, start="a")
    with pytest.raises(InputError, match="itself"):
        in_order(asking(tmp_path, b))


def test_all_leaves_out_what_is_of_another_number_of_objectives() -> None:
    found = with_named({}, ("all",), (), ("a", "b", "c"))
    assert not [name for name in found if name.startswith("mix_")]
    assert {"soup_6_4", "kto"} <= set(found)
    assert "mix_6_4" in with_named({}, ("all",), (), ("a", "b"))


def test_a_file_that_is_named_goes_before_an_entry_of_its_name(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("{title: new, source: ours, train: {align: {epochs: 3}}}")
    given = {"mine": OtherSystem(title="old", train={"align": {"epochs": 2}})}
    assert with_named(given, ("mine.yaml",), (tmp_path,), ("a", "b"))["mine"].title == "new"


PYTHON = """
from dataclasses import dataclass, field

from selfpriority.recipe import OtherSystem

changed = {"pair": {"order": "only:{first}"}, "align": {"betas": (0.9, 0.95)}}
by_mapping = {"title": "t", "source": "s", "train": changed}
needing = {"title": "t", "source": "s", "start": "stage_one", "train": {"pair": {"order": "swapped"}}}
merged = {"title": "t", "source": "s", "merge": {"by_mapping": 0.5, "spa": 0.5}}


@dataclass
class Mine:
    title: str
    source: str
    train: dict = field(default_factory=dict)


by_record = Mine("t", "s", {"pair": {"order": "sum"}})
no_source = OtherSystem(title="t", train={"pair": {"order": "sum"}})
Capital = by_mapping
misspelt = {"title": "t", "source": "s", "trian": {}}
function = lambda: 0
a_set = {"title": "t", "source": "s", "train": {"pair": {1, 2}}}
not_finite = {"title": "t", "source": "s", "train": {"align": {"beta": float("nan")}}}
"""


@pytest.fixture
def in_python(tmp_path: Path) -> Path:
    (tmp_path / "pkg").mkdir()
    (tmp_path / "pkg" / "mine.py").write_text(PYTHON)
    (tmp_path / "pkg" / "stage_one.yaml").write_text(yaml.safe_dump({"title": "t", "source": "s", "train": ORDERED}))
    return tmp_path


@pytest.mark.usefixtures("tidy")
def test_a_system_may_be_a_mapping_or_a_record_in_python(in_python: Path) -> None:
    systems = asking(in_python, "pkg.mine:by_mapping", "pkg.mine:by_record", "sft").evaluate.more_systems
    assert list(systems) == ["by_mapping", "by_record", "sft"]
    assert systems["by_mapping"].train == {"pair": {"order": "only:harmlessness"}, "align": {"betas": [0.9, 0.95]}}
    assert systems["by_record"].train == {"pair": {"order": "sum"}}


@pytest.mark.usefixtures("tidy")
def test_what_a_system_in_python_needs_lies_beside_it_or_is_named_too(in_python: Path) -> None:
    found = asking(in_python, "pkg.mine:needing", "pkg.mine:merged", "pkg.mine:by_mapping")
    systems = found.evaluate.more_systems
    assert {name: system.evaluated for name, system in systems.items()} == {
        "stage_one": False,
        "needing": True,
        "merged": True,
        "by_mapping": True,
    }
    check_merges(found)
    assert in_order(found) == ["stage_one", "needing", "by_mapping"]
    assert with_absolute_paths(found, Path("/")) == found  # the run needs the module no more


@pytest.mark.usefixtures("tidy")
@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ("pkg.nope:x", "evaluate.systems: 'pkg.nope:x': there is no module pkg.nope with a source file"),
        ("pkg.mine:by_recor", "mine.py holds no by_recor; did you mean by_record?"),
        ("pkg.mine:Capital", "'pkg.mine:Capital': a system is called as what holds it: a-z, 0-9 and _"),
        ("pkg.mine:function", "evaluate.systems: pkg.mine:function: a system is a mapping of fields, this is function"),
        ("pkg.mine:misspelt", "evaluate.systems: pkg.mine:misspelt: trian: unknown field; did you mean train?"),
        ("pkg.mine:no_source", "evaluate.systems: pkg.mine:no_source: source: required field is missing"),
        ("pkg.mine:a_set", "pkg.mine:a_set: holds what no file could: Object of type set is not JSON serializable"),
        ("pkg.mine:not_finite", "pkg.mine:not_finite: holds what no file could: "),
        ("a:b:c", "'a:b:c': is not of the form package.module:name"),
    ],
)
def test_what_is_wrong_with_one_in_python_is_one_line(in_python: Path, asked: str, told: str) -> None:
    with pytest.raises(InputError) as caught:
        asking(in_python, asked)
    (line,) = caught.value.lines
    assert told in line
