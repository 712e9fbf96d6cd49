import subprocess
import sys

from selfpriority.backends.scripted import ScriptedModel
from selfpriority.language_model import (
    Choice,
    Choose,
    Classify,
    Completion,
    Embed,
    Generate,
    Value,
    Vectors,
    ask,
)
from selfpriority.recipe import ScriptedBackend
from selfpriority.records import Message

HELLO = (Message("user", "hello"),)
MODEL = ScriptedModel(ScriptedBackend(kind="scripted"))


def requests(n: int) -> list[Generate]:
    return [Generate(HELLO, n=8, temperature=1.0, top_p=1.0, max_new_tokens=40, seed=i) for i in range(n)]


def test_answers_are_a_function_of_the_request() -> None:
    again = ScriptedModel(ScriptedBackend(kind="scripted"))
    assert ask(MODEL, requests(6)) == ask(again, requests(6))
    assert ask(MODEL, requests(6))[3:] == ask(again, requests(6)[3:])


def test_texts_differ_in_words_length_and_stop() -> None:
    texts = [text for answer in ask(MODEL, requests(10)) for text in answer.texts]
    assert len({text.text for text in texts}) == 80
    assert len({len(text.text.split()) for text in texts}) > 12
    assert {text.stop for text in texts} == {"end", "length"}
    assert 1 / 20 < sum(text.stop == "length" for text in texts) / 80 < 1 / 4
    assert all(text.n_tokens == len(text.text.split()) + (text.stop == "end") for text in texts)


def test_length_limit_is_kept() -> None:
    [answer] = ask(MODEL, [Generate(HELLO, 8, 1.0, 1.0, max_new_tokens=2, seed=0)])
    assert isinstance(answer, Completion)
    assert all(text.n_tokens == 2 and text.stop == "length" for text in answer.texts)


def test_other_kinds() -> None:
    choose = Choose((HELLO, (*HELLO, Message("assistant", "hi"))), ("0", "1", "2"))
    choice, vectors, value = ask(MODEL, [choose, Embed(HELLO, "hi", (1, 2)), Classify(HELLO, "hi")])
    assert isinstance(choice, Choice)
    assert isinstance(vectors, Vectors)
    assert isinstance(value, Value)
    assert [round(sum(row), 9) for row in choice.probabilities] == [0.95, 0.95]
    assert choice.probabilities[0] != choice.probabilities[1]
    assert [len(vector) for vector in vectors.vectors] == [8, 8]
    assert -1 <= value.value < 1


def test_models_of_other_names_answer_differently() -> None:
    other = ScriptedModel(ScriptedBackend(kind="scripted"), name="round-1")
    assert other.fingerprint != MODEL.fingerprint
    assert ask(other, requests(1)) != ask(MODEL, requests(1))


def test_four_a_batch() -> None:
    assert MODEL.plan(requests(9)) == [[0, 1, 2, 3], [4, 5, 6, 7], [8]]


def test_wrappers_and_stand_in_import_no_torch() -> None:
    code = (
        "import sys, selfpriority.backends.scripted, selfpriority.backends.progress, selfpriority.models.files;"
        "sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
