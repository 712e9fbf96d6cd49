"""What a user may set: one frozen class per step, bounds in the type, one sentence a field.

The only place with defaults; knows nothing of models.
"""

from selfpriority.recipe.align import Align, Lora
from selfpriority.recipe.backend import (
    Backend,
    HfBackend,
    OpenaiBackend,
    Prices,
    RayBackend,
    ScriptedBackend,
    VllmBackend,
    engine_of,
)
from selfpriority.recipe.branch import (
    TRAINED,
    VANILLA,
    branch_of,
    check_merges,
    in_order,
    merged_systems,
    trained_systems,
)
from selfpriority.recipe.evaluate import Evaluate, OtherSystem
from selfpriority.recipe.file import dump, load, load_recipe, parse, parse_judge
from selfpriority.recipe.judge import (
    ByBattery,
    ByContrast,
    ByProbe,
    ByPython,
    ByReward,
    InWords,
    JudgeSection,
    Score,
)
from selfpriority.recipe.method import Denoise, PairRules, Refine, Sample
from selfpriority.recipe.named import is_as_shipped, with_named
from selfpriority.recipe.pairs import Pairs
from selfpriority.recipe.prompts import Prompts
from selfpriority.recipe.recipe import Recipe
from selfpriority.recipe.section import Section
from selfpriority.recipe.unused import unused_fields, unused_in_training

__all__ = [
    "TRAINED",
    "VANILLA",
    "Align",
    "Backend",
    "ByBattery",
    "ByContrast",
    "ByProbe",
    "ByPython",
    "ByReward",
    "Denoise",
    "Evaluate",
    "HfBackend",
    "InWords",
    "JudgeSection",
    "Lora",
    "OpenaiBackend",
    "OtherSystem",
    "PairRules",
    "Pairs",
    "Prices",
    "Prompts",
    "RayBackend",
    "Recipe",
    "Refine",
    "Sample",
    "Score",
    "ScriptedBackend",
    "Section",
    "VllmBackend",
    "branch_of",
    "check_merges",
    "dump",
    "engine_of",
    "in_order",
    "is_as_shipped",
    "load",
    "load_recipe",
    "merged_systems",
    "parse",
    "parse_judge",
    "trained_systems",
    "unused_fields",
    "unused_in_training",
    "with_named",
]
