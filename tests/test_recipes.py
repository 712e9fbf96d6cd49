"""Recipes: those that ship, and what becomes of a wrong one."""

from __future__ import annotations

import json
from math import ceil
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from selfpriority import recipe
from selfpriority.constitution import load_constitution
from selfpriority.errors import InputError
from selfpriority.recipe import Align, Recipe
from selfpriority.recipe.named import shipped_systems
from selfpriority.run import key_of

SHIPPED = sorted((Path(__file__).parent.parent / "recipes").glob("*.yaml"))
SMALL = "model: some/model\nprompts: p.jsonl\n"

# SimPO's authors, by model family: (beta, gamma, learning rate of full fine-tuning)
TRAINING = {"llama-3.1-8b": (2.5, 1.375, 1e-6), "mistral-7b": (2.5, 0.25, 5e-7)}
MODELS = {
    "llama-3.1-8b": "meta-llama/Llama-3.1-8B-Instruct",
    "mistral-7b": "mistralai/Mistral-7B-Instruct-v0.2",
}
SOURCES = {
    "saferlhf": "PKU-Alignment/PKU-SafeRLHF",
    "wildguard": "allenai/wildguardmix",
    "honeset": "honeset.train.jsonl",
}


def write(folder: Path, text: str) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def refusal(path: Path, *overrides: str) -> str:
    with pytest.raises(InputError) as caught:
        recipe.load(path, overrides)
    assert caught.value.exit_code == 2
    return str(caught.value)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_every_shipped_recipe_parses(path):
    loaded = recipe.load(path)
    names = load_constitution(loaded.constitution).names
    assert loaded.sample.n > len(names)
    assert loaded.evaluate.prompts is not None
    assert path.read_text(encoding="utf-8").startswith("# "), "its first line is what `spa recipes` shows"


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("data", SOURCES)
def test_recipes_of_the_papers_settings(model, data):
    loaded = recipe.load(next(path for path in SHIPPED if path.stem == f"{model}-{data}"))
    assert loaded.model == MODELS[model]
    assert loaded.prompts.source == SOURCES[data]
    beta, gamma, rate = TRAINING[model]
    assert (loaded.align.beta, loaded.align.gamma, loaded.align.learning_rate) == (
        beta,
        gamma,
        pytest.approx(20 * rate),
    )
    assert loaded.constitution == ("honest-helpful" if data == "honeset" else "harmless-helpful")
    assert loaded.score.judge == recipe.InWords(judge="self")
    assert loaded.align.lora == recipe.Lora(r=16, alpha=32.0)
    assert (loaded.align.processes, loaded.backend.dtype, loaded.align.dtype) == (1, "bfloat16", "bfloat16")


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("data", SOURCES)
def test_recipes_for_eight_cards_differ_in_how_they_train_alone(model, data):
    one, eight = (
        recipe.load(next(path for path in SHIPPED if path.stem == f"{model}-{data}{card}")) for card in ("", "-8gpu")
    )
    full = {"lora": None, "learning_rate": TRAINING[model][2], "processes": 8, "parallel": "fsdp"}
    assert eight == one.model_copy(update={"align": one.align.model_copy(update=full)})


HONESET = 810
"""Prompts in the training part that the recipes' comment makes of it."""


@pytest.mark.parametrize("path", [path for path in SHIPPED if path.stem != "demo"], ids=lambda path: path.stem)
def test_recipes_are_sized_for_300_pools_where_the_set_is_large_enough(path):
    """At the yield that docs/scaling.md assumes: one prompt in n + 1 is consistent, keep_lowest keeps its share."""
    loaded, text = recipe.load(path), path.read_text("utf-8")
    assert loaded.denoise.consistency == "strict"
    assert loaded.denoise.keep_lowest is not None
    pools = (loaded.prompts.limit or HONESET) * loaded.denoise.keep_lowest / (loaded.sample.n + 1)
    n_tokens = pools * ((loaded.sample.n + 1) * loaded.sample.max_new_tokens + 100)  # a prompt has some hundred
    n_steps = loaded.align.epochs * ceil(n_tokens / loaded.align.tokens_per_step)
    if loaded.prompts.limit is None:
        assert f"some {pools:.0f} pools if one in n + 1 = 9 is consistent" in text
        assert f"# {HONESET * loaded.denoise.keep_lowest:.0f} (keep_lowest); 300 are out of reach" in text
        assert f"some {n_steps} steps" in text or f"some {n_steps} of {pools:.0f} pools" in text
    else:
        assert 300 <= pools < 310
        assert f"some {round(n_steps, -1)} steps of 300 pools" in text


@pytest.mark.parametrize("path", [path for path in SHIPPED if path.stem != "demo"], ids=lambda path: path.stem)
def test_recipes_for_gpus_are_judged_by_two_kinds_and_say_how_they_are_run(path):
    """A second judge of another kind or family, over-refusals where harmlessness is trained, and the three commands."""
    loaded, text = recipe.load(path), path.read_text("utf-8")
    [second] = loaded.evaluate.more_judges.values()
    if "honeset" in path.stem:
        assert isinstance(second, recipe.InWords)
        assert second.judge.split("/")[0] != loaded.evaluate.judge.judge.split("/")[0]
    else:
        assert isinstance(second, recipe.ByReward)
        assert set(second.rewards) == set(load_constitution(loaded.constitution).names)
        assert [source.source for source in loaded.evaluate.more_prompts.values()] == ["xstest"]
    for command in (f"plan {path.stem} --pilot", f"run {path.stem} ", f"compare {path.stem} --systems sft,"):
        assert f"#   spa {command}" in text
    [asked] = [line.split()[-1] for line in text.splitlines() if "--systems" in line]
    assert set(asked.split(",")) <= set(shipped_systems())


def test_wildguard_names_its_configuration_and_kind():
    loaded = recipe.load(next(path for path in SHIPPED if path.stem == "mistral-7b-wildguard"))
    assert (loaded.prompts.config, loaded.prompts.kind_column) == ("wildguardtrain", "prompt_harm_label")


def test_held_out_prompts_are_not_the_training_prompts():
    for path in SHIPPED:
        loaded = recipe.load(path)
        held_out = loaded.evaluate.prompts
        assert held_out is not None
        trained = loaded.prompts
        assert (trained.source, trained.config, trained.split) != (
            held_out.source,
            held_out.config,
            held_out.split,
        )


def test_a_small_recipe_takes_every_default(tmp_path):
    loaded = recipe.load(write(tmp_path, SMALL))
    assert loaded == Recipe(model="some/model", prompts=recipe.Prompts(source="p.jsonl"))
    assert (loaded.sample.n, loaded.denoise.keep_lowest, loaded.backend.kind, loaded.seed) == (
        8,
        0.32,
        "hf",
        0,
    )


def test_dump_and_load_are_inverse(tmp_path):
    for path in SHIPPED:
        loaded = recipe.load(path)
        assert recipe.load(write(tmp_path, recipe.dump(loaded))) == loaded


def test_dump_shows_every_default():
    text = recipe.dump(Recipe(model="m", prompts=recipe.Prompts(source="p")))
    assert "epsilon: 1.0e-06" in text
    assert "weight_gap: signed" in text


def test_a_recipe_is_frozen():
    loaded = Recipe(model="m", prompts=recipe.Prompts(source="p"))
    with pytest.raises(ValidationError, match="frozen"):
        loaded.seed = 1
    with pytest.raises(ValidationError, match="frozen"):
        loaded.align.beta = 1.0


def test_overrides_are_dotted_paths(tmp_path):
    path = write(tmp_path, SMALL + "align: {beta: 2.0}\n")
    loaded = recipe.load(
        path, ["align.beta=3.5", "align.lora={r: 4}", "prompts.limit=7", "seed=3", "backend.max_batch=2"]
    )
    assert (loaded.align.beta, loaded.seed, loaded.backend.max_batch) == (3.5, 3, 2)
    assert loaded.align.lora == recipe.Lora(r=4)
    assert (loaded.prompts.source, loaded.prompts.limit) == ("p.jsonl", 7)


def test_an_override_of_a_list_or_null(tmp_path):
    loaded = recipe.load(write(tmp_path, SMALL), ["evaluate.lambdas=[1, 2]", "denoise.max_det=2.5"])
    assert loaded.evaluate.lambdas == (1.0, 2.0)
    assert (loaded.denoise.max_det, loaded.denoise.keep_lowest) == (2.5, None)


def test_every_field_of_the_recipe_says_what_it_is():
    def undocumented(section, prefix=""):
        for name, field in section.model_fields.items():
            kinds = [field.annotation, *getattr(field.annotation, "__args__", ())]
            sections = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, recipe.Section)]
            if not field.description and not sections:
                yield prefix + name
            for inner in sections:
                yield from undocumented(inner, f"{prefix}{name}.")

    assert {name for name in undocumented(Recipe) if not name.endswith("kind")} <= {"backend", "score.judge"}


WRONG = {
    "unknown field, near one": ("smaple: {n: 4}", "smaple: unknown field; did you mean sample?"),
    "unknown inner field, near one": (
        "sample: {temprature: 1}",
        "sample.temprature: unknown field; did you mean temperature?",
    ),
    "unknown field, near none": (
        "pair: {zzz: 1}",
        "pair.zzz: unknown field; known here: margin, against, resolution, threshold",
    ),
    "out of bounds": ("sample: {n: 1}", "sample.n: Input should be greater than or equal to 2 (got 1)"),
    "wrong type": (
        "align: {beta: soft}",
        "align.beta: Input should be a valid number, unable to parse string as a number (got 'soft')",
    ),
    "not one of the choices": (
        "pair: {against: some}",
        "pair.against: Input should be 'all' or 'refined' (got 'some')",
    ),
    "both readings of tau": (
        "denoise: {max_det: 2.5, keep_lowest: 0.3}",
        "denoise: set max_det or keep_lowest, not both: each is a reading of tau",
    ),
    "a number where a section stands": (
        "sample: 8",
        "sample: Input should be a valid dictionary or instance of Sample (got 8)",
    ),
    "unknown backend field": ("backend: {replicas: 2}", "backend.replicas: unknown field"),
    "negative learning rate": (
        "align: {learning_rate: -1}",
        "align.learning_rate: Input should be greater than 0 (got -1)",
    ),
    "negative weight of a mean": (
        "evaluate: {lambdas: [5, -1]}",
        "evaluate.lambdas.1: Input should be greater than or equal to 0 (got -1)",
    ),
    "not a finite number": ("align: {gamma: .inf}", "align.gamma: Input should be a finite number (got inf)"),
    "rank of an adapter": ("align: {lora: {rank: 4}}", "align.lora.rank: unknown field"),
}


@pytest.mark.parametrize(("line", "message"), WRONG.values(), ids=WRONG.keys())
def test_a_wrong_field_is_named_with_its_value_and_remedy(tmp_path, line, message):
    path = write(tmp_path, f"{SMALL}{line}\n")
    found = refusal(path)
    assert found.startswith(f"{path}: {message}"), found
    assert "\n" not in found


def test_every_mistake_gets_a_line(tmp_path):
    lines = refusal(write(tmp_path, "prompts: p\nseed: -1\nrouns: 2\n")).splitlines()
    assert len(lines) == 3
    assert any("model: required field is missing" in line for line in lines)
    assert any("rouns: unknown field; did you mean rounds?" in line for line in lines)


def test_broken_yaml_names_its_line(tmp_path):
    path = write(tmp_path, "model: m\nprompts: [p\nseed: 0\n")
    assert refusal(path).startswith(f"{path}:3: not YAML: ")


def test_a_tab_in_the_indentation_names_its_line(tmp_path):
    path = write(tmp_path, "model: m\nsample:\n\tn: 3\n")
    assert refusal(path).startswith(f"{path}:3: not YAML: ")


@pytest.mark.parametrize(
    ("text", "message"),
    [("", "the recipe is empty"), ("- a\n- b\n", "this is list"), ("word", "this is str")],
)
def test_a_file_that_is_no_mapping(tmp_path, text, message):
    assert message in refusal(write(tmp_path, text))


def test_a_missing_file_and_a_folder(tmp_path):
    assert refusal(tmp_path / "none.yaml").endswith("no such recipe; `spa recipes` lists those that ship")
    assert refusal(tmp_path).endswith("is a directory, it must be a file")


def test_a_recipe_that_is_not_utf8(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_bytes(b"model: caf\xe9\n")
    assert refusal(path) == f"{path}: not UTF-8 (byte 10); save it as UTF-8"


@pytest.mark.parametrize("override", ["seed", "=3", ""])
def test_an_override_without_a_field_or_value(tmp_path, override):
    assert "overrides are FIELD=VALUE" in refusal(write(tmp_path, SMALL), override)


def test_an_override_that_is_not_yaml(tmp_path):
    assert refusal(write(tmp_path, SMALL), "seed=[1").startswith("seed: '[1':1: not YAML: ")


def test_an_unknown_override_suggests_the_nearest(tmp_path):
    assert refusal(write(tmp_path, SMALL), "align.bta=1").endswith("align.bta: unknown field; did you mean beta?")


@pytest.mark.parametrize(("method", "beta"), [("spa", 2.5), ("simpo", 2.5), ("dpo", 0.1), ("ipo", 0.1), ("sft", 2.5)])
def test_beta_follows_the_method_unless_given(tmp_path, method, beta):
    path = write(tmp_path, SMALL)
    assert recipe.load(path, [f"align.method={method}"]).align.beta == beta
    assert recipe.load(path, [f"align.method={method}", "align.beta=0.7"]).align.beta == 0.7


SETS_BETA = SMALL + "align: {beta: 2.5, gamma: 1.0}\n"


@pytest.mark.parametrize("given", ["align.method=dpo", "align.method=ipo"])
def test_a_beta_written_for_one_method_is_not_taken_over_by_another(tmp_path, given):
    path, method = write(tmp_path, SETS_BETA), given.partition("=")[2]
    said = refusal(path, given)
    assert said.startswith(f"{path}: align.beta: 2.5 is written for method spa; {method} has another scale (")
    assert said.endswith("): add align.beta=0.1, or the value you mean")
    assert recipe.load(path, [given, "align.beta=0.1"]).align.beta == 0.1
    assert recipe.load(path, ["align.beta=2.5", given]).align.beta == 2.5  # said, so meant
    assert recipe.load(path, [f"align={{method: {method}}}"]).align.beta == 0.1  # nothing of the file's is left


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_no_shipped_recipe_lends_its_beta_to_dpo(path):
    assert "align.beta: 2.5 is written for method spa" in refusal(path, "align.method=dpo")


def test_methods_of_one_scale_and_one_without_beta_take_a_recipe_as_it_is(tmp_path):
    path = write(tmp_path, SETS_BETA)
    assert recipe.load(path, ["align.method=simpo"]).align.beta == 2.5
    assert recipe.load(path, ["align.method=sft"]).align.method == "sft"


@pytest.mark.parametrize(("method", "to"), [("dpo", "spa"), ("dpo", "ipo"), ("ipo", "dpo")])
def test_a_resolved_recipe_reads_as_it_is_and_lends_its_beta_to_no_other_method(tmp_path, method, to):
    path = tmp_path / "resolved.yaml"
    path.write_text(recipe.dump(recipe.load(write(tmp_path, SMALL), [f"align.method={method}"])))
    assert recipe.load(path).align.method == recipe.load(path, [f"align.method={method}"]).align.method == method
    assert f"is written for method {method}; {to} has another scale" in refusal(path, f"align.method={to}")


def test_a_beta_that_a_method_without_one_wrote_out_is_nobodys(tmp_path):
    path = tmp_path / "resolved.yaml"
    path.write_text(recipe.dump(recipe.load(write(tmp_path, SMALL), ["align.method=sft"])))
    assert recipe.load(path, ["align.method=spa"]).align.beta == 2.5
    assert "is written for method sft; dpo has another scale" in refusal(path, "align.method=dpo")


def test_a_file_that_names_method_and_beta_is_read_whatever_they_are(tmp_path):
    """A run directory of before, where DPO took over SimPO's beta, is still a run's."""
    settings = recipe.load(write(tmp_path, SMALL + "align: {method: dpo, beta: 2.5}\n")).align
    assert (settings.method, settings.beta) == ("dpo", 2.5)
    assert settings.strange_beta == "align.beta: 2.5 is unusual for dpo (summed log-ratios: 0.01 to 0.5)"


@pytest.mark.parametrize(
    ("method", "beta", "is_strange"),
    [
        ("spa", 2.5, False),
        ("spa", 0.5, False),
        ("simpo", 0.1, True),
        ("spa", 60, True),
        ("dpo", 0.1, False),
        ("dpo", 0.001, True),
        ("ipo", 1, False),
        ("ipo", 2.5, True),
        ("kto", 0.1, False),
        ("safedpo", 2.5, True),
        ("bfpo", 0.01, False),
        ("bfpo", 0.5, True),
        ("sft", 0.1, False),
    ],
)
def test_a_beta_far_from_the_usual_is_told_of(method, beta, is_strange):
    assert (Align(method=method, beta=beta).strange_beta is not None) == is_strange


# of the fields as they were before `learn`, which would otherwise be trained again
KEYS = {
    "spa": (Align(), "5f8f9496ab164c01e1bb1bafd7b898f0c3155ff4c70ad5b14c53a45ee1448b4d"),
    "nll": (Align(nll=0.5), "df3d16401497f374f9e509192964c54b8edd39ce3b77fa2bb559e24fe3e84efa"),
    "dpo": (Align(method="dpo", nll=0.5), "3ec46faecac1a9e98329e7eddc1c9b117d736fdcd52aa2d5ec23b13b12a38887"),
    "sft on all": (
        Align(method="sft", learn="chosen"),
        "ecc5b76c0ad31abed9916711a85aa75b70583699c183688f15987be7c4d4fca5",
    ),
    "where nothing is learned": (
        Align(learn="best"),
        "5f8f9496ab164c01e1bb1bafd7b898f0c3155ff4c70ad5b14c53a45ee1448b4d",
    ),
}


@pytest.mark.parametrize(("method", "beta"), [("kto", 0.1), ("safedpo", 0.1), ("bfpo", 0.01), ("simpo", 2.5)])
def test_every_method_has_its_own_usual_beta(method, beta):
    assert Align(method=method).beta == beta


def test_what_is_safe_is_in_a_key_only_where_a_method_asks():
    for method, asked in {
        "dpo": [],
        "kto": [],
        "bfpo": ["safe_from"],
        "safedpo": ["safe_from", "unsafe_margin"],
    }.items():
        usual = Align(method=method).in_result
        changed = {"safe_from": 7.0, "unsafe_margin": 5.0}
        differ = [name for name in changed if Align(method=method, **{name: changed[name]}).in_result != usual]
        assert differ == asked


@pytest.mark.parametrize(("settings", "key"), KEYS.values(), ids=KEYS)
def test_what_learns_as_before_keeps_its_key(settings, key):
    assert key_of("align", settings.in_result) == key


def test_whose_likelihood_is_learned_is_in_the_key_where_it_matters():
    sft = [Align(method="sft", learn=learn).in_result for learn in ("best", "winners", "chosen")]
    assert len({key_of(fields) for fields in sft}) == 3
    assert Align(method="sft").in_result == sft[0]
    added = [Align(nll=0.5, learn=learn).in_result for learn in ("best", "winners", None)]
    assert len({key_of(fields) for fields in added}) == 3


def test_the_likelihood_is_not_added_to_itself(tmp_path):
    assert "method sft is that likelihood already" in refusal(write(tmp_path, SMALL), "align.method=sft", "align.nll=1")


@pytest.mark.parametrize(
    ("name", "field"),
    [
        ("average", "align.average=0.9"),
        ("weights", "align.weights=bfloat16"),
        ("lora.quantize", "align.lora={quantize: nf4}"),
    ],
)
def test_what_needs_the_whole_model_is_refused_with_shards(tmp_path, name, field):
    path = write(tmp_path, SMALL)
    recipe.load(path, [field, "align.parallel=ddp"])
    recipe.load(path, ["align.method=dpo", "align.parallel=fsdp"])
    assert f"{name} needs parallel: ddp" in refusal(path, field, "align.parallel=fsdp")


def test_nodes_are_no_part_of_what_is_trained_and_shards_want_company_on_theirs(tmp_path):
    path = write(tmp_path, SMALL)
    many = recipe.load(path, ["align.nodes=3", "align.processes=4", "align.parallel=hsdp"]).align
    assert many.in_result == recipe.load(path).align.in_result
    assert (many.n_together, many.n_shards) == (12, 4)
    assert many.model_copy(update={"parallel": "fsdp"}).n_shards == 12
    assert "shards within a node, where processes is 1" in refusal(path, "align.nodes=2", "align.parallel=hsdp")
    assert "average needs parallel: ddp" in refusal(path, "align.average=0.9", "align.parallel=hsdp")
    assert "in one process" in refusal(path, "align.method=grpo", "align.rows=online", "align.nodes=2")


def test_a_run_is_known_by_how_it_saves_only_where_that_is_chosen(tmp_path):
    """Else every run of before there was a choice would train again."""
    path = write(tmp_path, SMALL)
    assert "save" not in recipe.load(path).align.in_result
    assert recipe.load(path, ["align.save=float32"]).align.in_result["save"] == "float32"
    assert "save is for full fine-tuning" in refusal(path, "align.save=bfloat16", "align.lora={r: 4}")


def test_the_engine_that_was_removed_is_answered_with_what_to_use(tmp_path):
    answer = refusal(write(tmp_path, SMALL), "align.parallel=zero3")
    assert "zero3 (DeepSpeed) is no longer supported; use fsdp" in answer


@pytest.mark.parametrize("other", ["align.lora={r: 4}", "align.dtype=float32"])
def test_bfloat16_weights_are_for_full_fine_tuning_in_bfloat16(tmp_path, other):
    assert "align: weights" in refusal(write(tmp_path, SMALL), "align.weights=bfloat16", other)


ENDPOINT = "{kind: openai, base_url: http://localhost:8000/v1}"


def test_a_judge_may_have_a_backend_of_its_own(tmp_path):
    text = SMALL + f"evaluate: {{judge: big, backend: {ENDPOINT}}}\n"
    loaded = recipe.load(write(tmp_path, text), ["score.backend.dtype=float32"])
    server = recipe.OpenaiBackend(kind="openai", base_url="http://localhost:8000/v1")
    assert loaded.evaluate.judge == recipe.InWords(judge="big", backend=server)
    assert loaded.score.judge == recipe.InWords(judge="self", backend=recipe.HfBackend(dtype="float32"))
    assert loaded.backend == recipe.HfBackend()
    assert recipe.parse(yaml.safe_load(recipe.dump(loaded)), "again") == loaded


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("evaluate.backend={kind: openai, base_url: http://h/v1, modle: x}", "evaluate.backend.modle~model"),
        ("evaluate.more_judges={big: {judge: x, methd: verbal}}", "evaluate.more_judges.big.methd~method"),
        ("evaluate.more_judges={big: {judge: x, backend: {dtyp: a}}}", "evaluate.more_judges.big.backend.dtyp~dtype"),
        ("backend={kind: openai}", "backend.base_url: required field is missing"),
        ("backend={kind: openai, base_url: 'http://me:pass@h'}", "backend.base_url"),
    ],
)
def test_mistakes_in_a_backend_name_the_field(tmp_path, override, told):
    assert told.replace("~", ": unknown field; did you mean ") in refusal(write(tmp_path, SMALL), override)


PASTED = [
    "sk-proj-4f3Kq0aXw",
    "sk_live_51H8xYzQwErTy",
    "hf_abcdefghijklmnop",
    "AKIAIOSFODNN7EXAMPLE",
    "4F3A9C0D1E2B",
    "gsk9aB",
    "[sk-proj-4f3Kq0aXw]",
]


@pytest.mark.parametrize("key", PASTED)
def test_a_key_in_place_of_its_variable_is_refused_and_not_quoted(tmp_path, key):
    backend = f"{{kind: openai, base_url: http://h/v1, api_key_env: {key}}}"
    for override in (f"backend={backend}", f"evaluate.more_judges={{big: {{judge: x, backend: {backend}}}}}"):
        said = refusal(write(tmp_path, SMALL), override)
        assert "api_key_env: " in said
        assert "environment variable that holds the key" in said
        assert key.strip("[]") not in said


def test_an_address_with_a_password_is_refused_and_not_quoted(tmp_path):
    said = refusal(write(tmp_path, SMALL), "backend={kind: openai, base_url: 'http://me:pass1word@h/v1'}")
    assert "without a key or password in it" in said
    assert "pass1word" not in said


@pytest.mark.parametrize("name", ["OPENAI_API_KEY", "KEY", "SOME_API_TOKEN", "MY_KEY_2", "VLLM_API_KEY"])
def test_names_of_variables_are_taken(tmp_path, name):
    backend = f"backend={{kind: openai, base_url: https://h/v1, api_key_env: {name}}}"
    assert recipe.load(write(tmp_path, SMALL), [backend]).backend.api_key_env == name


def test_a_key_is_named_by_nothing_until_the_recipe_names_its_variable(tmp_path):
    backend = "backend={kind: openai, base_url: http://h/v1}"
    assert recipe.load(write(tmp_path, SMALL), [backend]).backend.api_key_env is None


@pytest.mark.parametrize("written", ["off", "'off'", "0.25", "strict"])
def test_consistency_as_it_is_written(tmp_path, written):
    """YAML reads a bare `off` as False, which must not become the share 0.0."""
    expected = 0.25 if written == "0.25" else written.strip("'")
    loaded = recipe.load(write(tmp_path, SMALL), [f"denoise.consistency={written}"])
    assert loaded.denoise.consistency == expected
    assert type(loaded.denoise.consistency) is type(expected)
    in_file = recipe.load(write(tmp_path, f"{SMALL}denoise: {{consistency: {written}}}\n"))
    assert in_file == loaded
    assert recipe.load(write(tmp_path, recipe.dump(loaded))) == loaded


def test_a_wrong_consistency_is_told_in_one_line(tmp_path):
    said = refusal(write(tmp_path, SMALL), "denoise.consistency=2")
    assert said.endswith(
        "denoise.consistency: Input should be 'strict' or 'off'; or: Input should be less than or equal to 1 (got 2)"
    )
    assert "\n" not in said


WORDS, PROBE = recipe.InWords(judge="self"), recipe.ByProbe(kind="probe", judge="demo-train")
REWARDS = {"harmlessness": "a", "helpfulness": "b"}
WRITTEN = recipe.InWords(judge="big", method="verbal")
FLAT = {
    "nothing": ({}, WORDS),
    "the default in full": ({"judge": "self", "method": "expected"}, WORDS),
    "a model": ({"judge": "big", "method": "verbal"}, WRITTEN),
    "heads": ({"judge": "demo-train", "method": "probe"}, PROBE),
    "heads by their name alone, told apart on the disk": ({"judge": "demo-train"}, recipe.InWords(judge="demo-train")),
    "reward models": ({"method": "reward", "rewards": REWARDS}, recipe.ByReward(kind="reward", rewards=REWARDS)),
    "a function": (
        {"judge": "mine:rate", "method": "python", "version": "2"},
        recipe.ByPython(kind="python", judge="mine:rate", version="2"),
    ),
    "a server": (
        {"judge": "big", "backend": {"dtype": "float32"}},
        recipe.InWords(judge="big", backend=recipe.HfBackend(dtype="float32")),
    ),
    "what is empty says nothing": ({"judge": "demo-train", "method": "probe", "rewards": {}, "backend": None}, PROBE),
    "the new form": ({"judge": {"kind": "probe", "judge": "demo-train"}}, PROBE),
    "the new form without its kind": (
        {"judge": {"judge": "big", "method": "verbal"}},
        recipe.InWords(judge="big", method="verbal"),
    ),
    "the new form and a field beside it": (
        {"judge": {"kind": "words", "judge": "big"}, "method": "verbal"},
        recipe.InWords(judge="big", method="verbal"),
    ),
}


@pytest.mark.parametrize("place", ["score", "evaluate"])
@pytest.mark.parametrize(("flat", "judge"), FLAT.values(), ids=FLAT.keys())
def test_a_judge_may_be_spelled_flat(tmp_path, flat, judge, place):
    loaded = recipe.load(write(tmp_path, SMALL + yaml.safe_dump({place: flat})))
    assert getattr(loaded, place).judge == judge
    overrides = [f"{place}.{name}={json.dumps(value)}" for name, value in flat.items()]
    assert recipe.load(write(tmp_path, SMALL), overrides) == loaded
    assert recipe.load(write(tmp_path, recipe.dump(loaded))) == loaded


@pytest.mark.parametrize("place", ["comparer", "more_judges"])
@pytest.mark.parametrize(
    ("flat", "judge"), [given for name, given in FLAT.items() if "judge" in given[0] and "new form" not in name]
)
def test_further_judges_are_spelled_flat_too(tmp_path, flat, judge, place):
    given = {"comparer": flat} if place == "comparer" else {"more_judges": {"words": flat}}
    loaded = recipe.load(write(tmp_path, SMALL + yaml.safe_dump({"evaluate": given})))
    assert (loaded.evaluate.comparer if place == "comparer" else loaded.evaluate.more_judges["words"]) == judge
    assert recipe.load(write(tmp_path, recipe.dump(loaded))) == loaded


def test_what_only_a_judge_in_words_has_belongs_to_it(tmp_path):
    loaded = recipe.load(
        write(tmp_path, SMALL), ["score.mass_floor=0.2", "score.judge.max_new_tokens=7", "evaluate.max_new_tokens=9"]
    )
    assert loaded.score.judge == recipe.InWords(judge="self", mass_floor=0.2, max_new_tokens=7)
    assert (loaded.evaluate.judge, loaded.evaluate.max_new_tokens) == (WORDS, 9)


def test_a_judge_as_version_0_1_0_wrote_it_out_is_read(tmp_path):
    """Every field of every kind stood there, whatever the method."""
    whole = {
        "judge": "demo-train",
        "method": "probe",
        "rewards": {},
        "backend": None,
        "mass_floor": 0.3,
        "max_new_tokens": 64,
    }
    assert recipe.load(write(tmp_path, SMALL + yaml.safe_dump({"score": whole}))).score.judge == PROBE


@pytest.mark.parametrize(
    ("override", "told"),
    [
        (
            "score={judge: x, method: probe, mass_floor: 0.3}",
            "score.mass_floor: unknown field; known here: kind, judge",
        ),
        ("score.rewards={a: b}", "score.rewards: unknown field; known here: kind, judge, method, backend"),
        (
            "score.method=soft",
            "score.method: Input should be 'expected', 'verbal', 'battery', 'probe', 'contrast', 'reward' "
            "or 'python' (got 'soft')",
        ),
        ("score.mass_floor=2", "score.mass_floor: Input should be less than or equal to 1 (got 2)"),
        ("score={judge: 3}", "score.judge: Input should be a valid string (got 3)"),
        ("score.judge={kind: probe, judge: x, method: verbal}", "score.judge.method: unknown field"),
        ("score.judge={kind: heads}", "score.judge.kind: 'heads' is none of 'words', 'probe', 'contrast', 'battery', "),
        ("evaluate.more_judges={a: {method: verbal}}", "evaluate.more_judges.a.judge: required field is missing"),
        ("evaluate.more_judges={probe: {judge: x, methd: y}}", "evaluate.more_judges.probe.methd: unknown field"),
        ("evaluate.mass_floor=0.5", "evaluate.mass_floor: unknown field"),
    ],
)
def test_a_field_that_is_not_of_the_judge_is_a_mistake(tmp_path, override, told):
    assert told in refusal(write(tmp_path, SMALL), override)


def test_of_many_mistakes_the_first_are_told(tmp_path):
    many = ", ".join(f"x{n}: 1" for n in range(3000))
    with pytest.raises(InputError) as caught:
        recipe.load(write(tmp_path, SMALL), [f"sample={{{many}}}"])
    assert len(caught.value.lines) == 21
    assert caught.value.lines[-1] == "there are more mistakes than these"


@pytest.mark.parametrize("written", ["2", "1.10", "0x10", "true"])
def test_a_number_on_the_shell_is_text_where_a_field_is_text(tmp_path, written):
    judge = "score={method: python, judge: 'mine:rate'}"
    found = recipe.load(
        write(tmp_path, SMALL), [judge, f"score.version={written}", "seed=3", "score.batch_size=4", f"model={written}"]
    )
    assert (found.score.judge.version, found.model, found.seed, found.score.judge.batch_size) == (
        written,
        written,
        3,
        4,
    )


def test_a_number_stays_wrong_in_a_file_and_where_no_text_is_meant(tmp_path):
    path = write(tmp_path, SMALL + "score: {method: python, judge: 'mine:rate', version: 2}\n")
    assert "score.version: Input should be a valid string (got 2)" in refusal(path)
    assert "score.version: Input should be a valid string (got 2)" in refusal(path, "model=2")
    assert "sample.n: Input should be a valid integer" in refusal(write(tmp_path, SMALL), "sample.n=2.5", "model=2")
