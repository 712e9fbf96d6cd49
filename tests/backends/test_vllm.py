"""vLLM as an engine: process, pipe and restart are real, the package stands in; `test_real_vllm.py` has that too."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from selfpriority.backends import engine as engines
from selfpriority.backends.cache import Cached
from selfpriority.backends.choices import Speller
from selfpriority.backends.engine import vllm_version
from selfpriority.backends.vllm import VllmModel
from selfpriority.errors import InputError, WorkFailed
from selfpriority.language_model import Choice, Choose, Completion, Embed, Failure, Generate, ask
from selfpriority.models.loading import describe
from selfpriority.recipe import VllmBackend
from selfpriority.records import Message
from tests.backends.stand_in_vllm import VERSION, StandIn

HERE = VllmBackend(kind="vllm")


def said(text: str) -> tuple[Message, ...]:
    return (Message("user", text),)


def draw(text: str, n: int = 1, max_new_tokens: int = 8, temperature: float = 1.0) -> Generate:
    return Generate(said(text), n, temperature, 0.9, max_new_tokens, seed=3)


def test_answers_end_where_an_end_token_stands_and_are_cut_elsewhere(stand_in: StandIn, tiny_model: Path) -> None:
    model = VllmModel(str(tiny_model), HERE)
    whole, cut = ask(model, [draw("one", n=2), draw("two", max_new_tokens=3)])
    assert isinstance(whole, Completion)
    assert isinstance(cut, Completion)
    assert [(text.stop, text.n_tokens) for text in (*whole.texts, *cut.texts)] == [
        ("end", 4),
        ("end", 4),
        ("length", 3),
    ]
    assert len({text.text for text in whole.texts}) == 2
    assert [asked["n"] for asked in stand_in.noted("asked")] == [2, 1]


def test_the_engine_is_given_the_very_tokens_of_the_chat(stand_in: StandIn, tiny_model: Path) -> None:
    request = Generate(said("one"), 1, 1.0, 1.0, 8, 0, opening="Sure,")
    description = describe(str(tiny_model))
    assert description is not None
    assert description.chat is not None
    chat = description.chat
    (answer,) = ask(VllmModel(str(tiny_model), HERE), [request])
    (asked,) = stand_in.noted("asked")
    assert asked["ids"] == [*chat.answered_ids(said("one")), *chat.response_ids("Sure,", "length")]
    assert isinstance(answer, Completion)
    assert answer.texts[0].text.startswith("Sure,")


def test_greedy_draws_are_asked_for_once(stand_in: StandIn, tiny_model: Path) -> None:
    (answer,) = ask(VllmModel(str(tiny_model), HERE), [draw("one", n=3, temperature=0.0)])
    assert isinstance(answer, Completion)
    assert len(answer.texts) == 3
    assert len({*answer.texts}) == 1
    assert [asked["n"] for asked in stand_in.noted("asked")] == [1]


def test_a_choice_is_the_sum_of_its_spellings_in_every_context(stand_in: StandIn, tiny_model: Path) -> None:
    contexts, digits = (said("good?"), said("is it any better?")), ("1", "2", "9")
    (answer,) = ask(VllmModel(str(tiny_model), HERE), [Choose(contexts, digits)])
    description = describe(str(tiny_model))
    assert description is not None
    assert description.chat is not None
    spelled = Speller(description.chat).spelled(digits)
    assert spelled.leads == ((),)
    lengths = [len(description.chat.answered_ids(context)) for context in contexts]
    expected = [[sum(1 / (token + n) for token in tokens) for tokens in spelled.singles] for n in lengths]
    assert isinstance(answer, Choice)
    assert [pytest.approx(row, rel=1e-9) for row in expected] == [list(row) for row in answer.probabilities]


def test_what_no_engine_is_asked_starts_none(stand_in: StandIn, tiny_model: Path) -> None:
    model = VllmModel(str(tiny_model), HERE)
    long, shown = ask(model, [draw("far " * 600), Embed(said("a"), "b", (1,))])
    assert isinstance(long, Failure)
    assert isinstance(shown, Failure)
    assert (long.reason, shown.reason) == ("too_long", "unsupported")
    assert not stand_in.noted("asked")


def test_a_question_that_the_engine_refuses_costs_no_other(stand_in: StandIn, tiny_model: Path) -> None:
    description = describe(str(tiny_model))
    assert description is not None
    assert description.chat is not None
    stand_in.tell(refuse_length=len(description.chat.prompt_ids(said("a very long and winding word"))))
    found = ask(VllmModel(str(tiny_model), HERE), [draw("a very long and winding word"), draw("b")])
    assert isinstance(found[0], Failure)
    assert found[0] == Failure("rejected", "no such prompt, please")
    assert isinstance(found[1], Completion)


def test_an_engine_that_dies_is_started_once_more_and_nothing_is_asked_twice(
    stand_in: StandIn, tiny_model: Path
) -> None:
    stand_in.tell(die_at=[2])
    told: list[str] = []
    requests = [draw(f"question {n}") for n in range(5)]
    found = ask(VllmModel(str(tiny_model), HERE, told.append), requests)
    assert all(isinstance(answer, Completion) for answer in found)
    assert len(stand_in.noted("starts")) == 2
    assert len(stand_in.noted("done")) == 5
    (died,) = [line for line in told if "died" in line]
    assert "out of everything" in died
    assert "started again" in died


def test_one_that_dies_twice_ends_the_work_and_keeps_what_came(
    stand_in: StandIn, tiny_model: Path, tmp_path: Path
) -> None:
    stand_in.tell(die_at=[2, 3])
    requests = [draw(f"question {n}") for n in range(6)]
    model = Cached(VllmModel(str(tiny_model), HERE), tmp_path / "answers.sqlite")
    with pytest.raises(WorkFailed, match="died twice") as caught:
        ask(model, requests)
    assert len(str(caught.value).splitlines()) == 1
    log = Path(str(caught.value).partition("all of it: ")[2].partition(")")[0])
    assert "out of everything" in log.read_text()
    log.unlink()
    assert not stand_in.alive
    ask(model, requests)
    assert len(stand_in.noted("done")) == 6  # three before, three now


def test_one_that_does_not_start_says_why(stand_in: StandIn, tiny_model: Path) -> None:
    stand_in.tell(start="no room for the keys and values; raise max_model_len")
    with pytest.raises(InputError, match=r"does not start.*no room for the keys") as caught:
        ask(VllmModel(str(tiny_model), HERE), [draw("a")])
    assert len(caught.value.lines) == 1
    assert not stand_in.alive


def test_an_engine_gives_way_to_the_next_and_ends_with_its_model(
    stand_in: StandIn, tiny_model: Path, yes_no_model: Path
) -> None:
    first, second = VllmModel(str(tiny_model), HERE), VllmModel(str(yes_no_model), HERE)
    ask(first, [draw("a")])
    (pid,) = stand_in.alive
    ask(first, [draw("b")])
    assert stand_in.alive == [pid]
    ask(second, [draw("a")])
    assert len(stand_in.alive) == 1
    assert stand_in.alive != [pid]
    ask(first, [draw("c")])  # it comes back
    assert len(stand_in.alive) == 1
    del first, second
    gc.collect()
    assert not stand_in.alive


def test_models_that_are_started_alike_share_an_engine(stand_in: StandIn, tiny_model: Path) -> None:
    first, second = VllmModel(str(tiny_model), HERE), VllmModel(str(tiny_model), HERE)
    ask(first, [draw("a")])
    ask(second, [draw("b")])
    assert len(stand_in.noted("starts")) == 1


def test_another_call_is_seeded_otherwise(stand_in: StandIn, tiny_model: Path) -> None:
    for text in ("a", "b", "a"):
        ask(VllmModel(str(tiny_model), HERE), [draw(text)])
        gc.collect()
    first, second, third = (start["seed"] for start in stand_in.noted("starts"))
    assert first == third != second


def test_whoever_stops_listening_leaves_no_engine_at_work(stand_in: StandIn, tiny_model: Path) -> None:
    model = VllmModel(str(tiny_model), HERE)
    answers = model.answer([[draw(f"question {n}")] for n in range(200)])
    next(answers)
    answers.close()  # type: ignore[attr-defined]
    assert not stand_in.alive
    assert isinstance(ask(model, [draw("again")])[0], Completion)


_ASKING = """
import sys, time
from selfpriority.backends.vllm import VllmModel
from selfpriority.language_model import Generate, ask
from selfpriority.records import Message
from selfpriority.recipe import VllmBackend
model = VllmModel(sys.argv[1], VllmBackend(kind="vllm"))
ask(model, [Generate((Message("user", "a"),), 1, 1.0, 1.0, 4, 0)])
print("asked", flush=True)
time.sleep(60)
"""


@pytest.mark.slow  # another process imports everything
def test_it_dies_with_whoever_started_it(stand_in: StandIn, tiny_model: Path) -> None:
    source = str(Path(engines.__file__).parents[2])
    environment = {**os.environ, "PYTHONPATH": f"{source}{os.pathsep}{stand_in.folder}"}
    command = [sys.executable, "-c", _ASKING, str(tiny_model)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "asked\n"
        assert stand_in.alive
        parent.send_signal(signal.SIGKILL)
        parent.wait()
    for _ in range(100):
        if not stand_in.alive:
            break
        time.sleep(0.1)
    assert not stand_in.alive


def test_the_key_of_an_answer_holds_who_gave_it(stand_in: StandIn, tiny_model: Path) -> None:
    def print_of(**changes: object) -> str:
        return VllmModel(str(tiny_model), HERE.model_copy(update=changes)).fingerprint

    assert VERSION in print_of()
    different = [print_of(), print_of(dtype="float32"), print_of(engine={"quantization": "fp8"})]
    assert len({*different}) == 3
    assert {print_of(memory_share=0.3), print_of(tensor_parallel=2)} == {print_of()}


@pytest.mark.filterwarnings("ignore::FutureWarning")  # of peft's own call
def test_every_adapter_is_answered_by_its_own_weights(stand_in: StandIn, tiny_model: Path, tmp_path: Path) -> None:
    folders = [save_adapter(tiny_model, tmp_path / name, seed) for seed, name in enumerate(("a", "b"))]
    models = [VllmModel(str(folder), HERE) for folder in folders]
    for turn in ("one", "two"):
        for model in models:
            ask(model, [draw(turn)])
    assert models[0]._engine is models[1]._engine  # both lie beside one base
    assert [asked["lora"] for asked in stand_in.noted("asked")] == [*map(str, folders)] * 2
    save_adapter(tiny_model, folders[0], seed=2)  # trained anew, into the same folder
    again = VllmModel(str(folders[0]), HERE)
    ask(again, [draw("one")])
    assert again.fingerprint != models[0].fingerprint
    assert stand_in.noted("adapters") == [[1, str(folders[0])], [2, str(folders[1])], [3, str(folders[0])]]


def save_adapter(base: Path, folder: Path, seed: int) -> Path:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_pretrained(base)
        settings = LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False, task_type="CAUSAL_LM")
        get_peft_model(model, settings).save_pretrained(folder)
    return folder


def test_an_interpreter_without_vllm_is_said_at_once(tiny_model: Path) -> None:
    vllm_version.cache_clear()
    nowhere = HERE.model_copy(update={"python": "/no/such/python"})
    with pytest.raises(InputError, match=r"backend.python: /no/such/python cannot be run"):
        VllmModel(str(tiny_model), nowhere)
    with pytest.raises(InputError, match="has no vllm; install it there"):
        VllmModel(str(tiny_model), HERE.model_copy(update={"python": "/usr/bin/python3"}))
