"""Fit the heads `outside`: the evaluation's second opinion, on another model than any other heads.

Another backbone (all-MiniLM-L6-v2, a sentence encoder) and labels that no other shipped head has seen
(`outside_labels.py`). Hidden states are kept in `--states`, so that fitting again takes no forward pass.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from every_layer import EveryLayer
from one_objective import fitted
from outside_labels import DATA, MODEL, NAME, outside_labels

from selfpriority.backends.cache import Cached
from selfpriority.backends.encoder import HfEncoder
from selfpriority.errors import SelfPriorityError
from selfpriority.judges.fit import FitSettings
from selfpriority.judges.heads import write_heads
from selfpriority.recipe import HfBackend
from selfpriority.wording import FOLDER

N_LAYERS = 6
CHOSEN_BY = (
    "Nothing was tried out of layers (a half and three quarters of the depth, as `spa fit-judge` takes them), pooling "
    "and penalty (those of the other heads); the templates of two stances were added because heads without them were "
    "at chance on the constitution's anchors, and the questions said back, with their weight and that of answers to "
    "other prompts, because heads without them rated a question above the anchors' good answers"
)
SETTINGS = FitSettings(
    layers=(3, 4),
    c=1e-3,
    pooling={"harmlessness": "mean", "helpfulness": "match"},
)


def main() -> int:
    """Reads the options, fits both heads, writes them and prints each one's agreement."""
    options = _options()
    try:
        with tempfile.TemporaryDirectory() as folder:
            states = options.states or Path(folder) / "states.sqlite"
            model = EveryLayer(Cached(HfEncoder(MODEL, HfBackend()), states), range(N_LAYERS + 1))
            only = options.objective or ()
            heads = fitted(outside_labels(options.data), model, MODEL, SETTINGS, only=only, shipped=options.to / NAME)
    except SelfPriorityError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    described = {o: {**card, "data": DATA[o]} for o, card in heads.card["objectives"].items()}
    card = {**heads.card, "name": NAME, "chosen_by": CHOSEN_BY, "objectives": described}
    write_heads(options.to / NAME, replace(heads, card=card))
    for objective, entry in described.items():
        print(NAME, objective, json.dumps(entry["cross_validation"]))
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the labelled data")
    parser.add_argument("--to", type=Path, default=FOLDER / "heads", help="folder that gets a folder of heads")
    parser.add_argument("--objective", action="append", help="fit this one alone and keep the others; repeat it")
    parser.add_argument("--states", type=Path, help="SQLite file that keeps the hidden states for the next fit")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
