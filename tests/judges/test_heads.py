from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from selfpriority.errors import InputError
from selfpriority.judges.heads import Head, Heads, rating_of, read_heads, write_heads


def head(objective: str = "harmlessness", layer: int = 2) -> Head:
    return Head(
        objective,
        (layer,),
        "mean",
        mean=np.array([1.0, 0.0, -1.0]),
        scale=np.array([2.0, 1.0, 0.5]),
        weights=np.array([1.0, -1.0, 0.5]),
        bias=0.25,
        centre=0.5,
        spread=2.0,
    )


def test_logit_by_hand() -> None:
    # (3-1)/2 * 1 - 2 * 1 + (0+1)/0.5 * 0.5 + 0.25
    assert head().logit([3.0, 2.0, 0.0]) == pytest.approx(1 - 2 + 1 + 0.25)


def test_a_match_multiplies_what_was_asked_with_what_is_said() -> None:
    wide = Head(
        "helpfulness",
        (2,),
        "match",
        mean=np.array([1.0, 0.0, 2.0, 0.0]),
        scale=np.array([1.0, 2.0, 1.0, 1.0]),
        weights=np.array([1.0, 10.0, 100.0, 1000.0]),
        bias=0.0,
        centre=0.0,
        spread=1.0,
    )
    # response (3-1, 4/2) = (2, 2), prompt (5-2, -1) = (3, -1), products (6, -2)
    assert wide.logit([3.0, 4.0, 5.0, -1.0]) == pytest.approx(2 + 20 + 600 - 2000)


def test_a_card_with_a_single_layer_is_still_read(tmp_path: Path) -> None:
    write_heads(tmp_path, Heads("tiny", {"harmlessness": head()}, {}))
    _with_card(objectives={"harmlessness": {"layer": 2, "pooling": "mean"}})(tmp_path)
    assert read_heads(tmp_path).by_objective["harmlessness"].layers == (2,)


def test_the_centre_is_rated_in_the_middle_and_one_spread_by_the_formula() -> None:
    at_centre = [1.5, 0.0, -1.0]  # logit 0.25 + 0.25 = centre
    assert head().rating(at_centre) == pytest.approx(5.5)
    one_up = [5.5, 0.0, -1.0]  # logit 2.5 = centre + spread
    assert head().rating(one_up) == pytest.approx(1 + 9 / (1 + np.exp(-0.8)))


def test_ratings_rise_strictly_and_never_reach_the_ends() -> None:
    ratings = [rating_of(z) for z in np.linspace(-30, 30, 601)]
    assert all(low < high for low, high in pairwise(ratings))
    assert [rating_of(z) + rating_of(-z) for z in (0.1, 1, 7)] == pytest.approx([11.0] * 3)
    assert 1.0 < rating_of(-1e6) < rating_of(1e6) < 10.0


def test_a_folder_gives_back_what_was_written(tmp_path: Path) -> None:
    heads = Heads(
        "tiny",
        {"harmlessness": head(), "helpfulness": head("helpfulness", 1)},
        {"licence": "MIT", "objectives": {"helpfulness": {"data": "ours"}}},
    )
    write_heads(tmp_path / "heads", heads)
    back = read_heads(tmp_path / "heads")
    assert back.model == "tiny"
    assert back.fingerprint == heads.fingerprint
    assert (back.by_objective["helpfulness"].layers, back.card["licence"]) == ((1,), "MIT")
    assert back.card["objectives"]["helpfulness"] == {"layers": [1], "pooling": "mean", "data": "ours"}
    vector = [0.3, -2.0, 4.0]
    assert back.by_objective["harmlessness"].rating(vector) == pytest.approx(head().rating(vector))


def test_the_fingerprint_sees_every_number() -> None:
    def heads(changed: Head) -> Heads:
        return Heads("tiny", {"harmlessness": changed}, {})

    plain = head()
    changes = (
        replace(plain, layers=(3,)),
        replace(plain, centre=0.6),
        replace(plain, weights=plain.weights + np.array([0, 0, 0.1])),
        replace(plain, pooling="match"),
    )
    assert len({heads(h).fingerprint for h in (plain, *changes)}) == 5


def _broken(tmp_path: Path, change) -> str:
    write_heads(tmp_path, Heads("tiny", {"harmlessness": head()}, {}))
    change(tmp_path)
    with pytest.raises(InputError) as error:
        read_heads(tmp_path)
    return str(error.value)


def _with_card(**fields):
    def change(folder: Path) -> None:
        card = json.loads((folder / "card.json").read_text())
        (folder / "card.json").write_text(json.dumps({**card, **fields}))

    return change


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda f: (f / "card.json").unlink(), "card.json is missing"),
        (lambda f: (f / "heads.safetensors").unlink(), "heads.safetensors is missing"),
        (lambda f: (f / "card.json").write_text("{"), "card.json: not JSON"),
        (lambda f: (f / "card.json").write_text("[]"), "not a card"),
        (lambda f: (f / "heads.safetensors").write_bytes(b"pickle"), "not a safetensors file"),
        (_with_card(objectives={"honesty": {"layer": 1, "pooling": "mean"}}), "honesty: tensors mean, scale"),
        (
            _with_card(objectives={"harmlessness": {"layer": 1, "pooling": "last"}}),
            "pooling 'last' is unknown",
        ),
    ],
)
def test_broken_folders_are_explained(tmp_path: Path, change, told: str) -> None:
    assert told in _broken(tmp_path, change)


def test_a_spread_of_zero_is_refused(tmp_path: Path) -> None:
    write_heads(tmp_path, Heads("tiny", {"harmlessness": replace(head(), spread=0.0)}, {}))
    with pytest.raises(InputError, match="positive"):
        read_heads(tmp_path)


def test_the_judges_import_without_torch() -> None:
    rooms = ("words", "heads", "probe", "reward", "labels", "fit", "check", "comparer", "asking")
    code = "import sys\n" + "".join(f"import selfpriority.judges.{room}\n" for room in rooms)
    done = subprocess.run(
        [sys.executable, "-c", f"{code}sys.exit('torch' in sys.modules)"],
        env={"PYTHONPATH": str(Path(__file__).parents[2] / "src")},
        check=False,
    )
    assert done.returncode == 0
