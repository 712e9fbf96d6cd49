"""Fit the heads that ship for the embedded model: `demo-train` to train with, `demo-eval` to judge with, `ranking`.

The labels are split by prompt into two halves that share none, and the demo's sets use different layers, so that the
judge of the evaluation is not the one that was trained on. Which labels there are is in `shipped_labels.py`.
Hidden states are kept in `--states`, so that fitting again with other settings takes no forward pass.
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
from shipped_labels import DATA, MIXES, labels_of

from selfpriority.backends.cache import Cached
from selfpriority.backends.hf import HfModel
from selfpriority.errors import SelfPriorityError
from selfpriority.judges.fit import FitSettings
from selfpriority.judges.heads import Pooling, write_heads
from selfpriority.recipe import HfBackend
from selfpriority.wording import FOLDER

CHOSEN_BY = (
    "Layers, pooling and penalty: agreement on the other set's labels, and AUC on the train split of "
    "PKU-SafeRLHF's labelled answers, which were measured on and not fitted"
)
LAYERS = {
    "demo-train": {"harmlessness": (15, 22), "helpfulness": (15, 22)},
    "demo-eval": {"harmlessness": (18, 20), "helpfulness": (18, 20)},
    "ranking": {"harmlessness": (15, 22), "helpfulness": (15, 18)},
}
_C = {"harmlessness": 1e-3, "helpfulness": 1e-3}
C = {"demo-train": _C, "demo-eval": _C, "ranking": {**_C, "helpfulness": 5e-4}}


def main() -> int:
    """Reads the options, fits every set, writes it and prints each head's agreement."""
    options = _options()
    try:
        with tempfile.TemporaryDirectory() as folder:
            states = options.states or Path(folder) / "states.sqlite"
            model = EveryLayer(Cached(HfModel(options.model, HfBackend()), states), every_layer())
            only = options.objective or ()
            for name in MIXES:
                labels = labels_of(options.data, name, options.limit)
                heads = fitted(labels, model, options.model, _settings(name), only=only, shipped=options.to / name)
                described = {o: {**card, "data": DATA[o]} for o, card in heads.card["objectives"].items()}
                card = {**heads.card, "name": name, "chosen_by": CHOSEN_BY, "objectives": described}
                write_heads(options.to / name, replace(heads, card=card))
                for objective, entry in described.items():
                    print(name, objective, json.dumps(entry["cross_validation"]), flush=True)
    except SelfPriorityError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


def every_layer() -> set[int]:
    """What any of the heads reads."""
    return {layer for by_objective in LAYERS.values() for layers in by_objective.values() for layer in layers}


def _settings(name: str) -> FitSettings:
    pooling: dict[str, Pooling] = {"harmlessness": "mean", "helpfulness": "match"}
    return FitSettings(layers=LAYERS[name], c=C[name], pooling=pooling)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the labelled data")
    parser.add_argument("--to", type=Path, default=FOLDER / "heads", help="folder that gets one folder per set")
    parser.add_argument("--model", default="smollm2-135m", help="model whose hidden states are used")
    parser.add_argument("--objective", action="append", help="fit this one alone and keep the others; repeat it")
    parser.add_argument("--states", type=Path, help="SQLite file that keeps the hidden states for the next fit")
    parser.add_argument("--limit", type=int, default=None, help="labels of each source, for a quick trial")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
