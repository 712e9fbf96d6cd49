"""What a user may set: one frozen class per step, bounds in the type, one sentence a field.

The only place with defaults; knows nothing of models.
"""

from selfpriority.recipe.align import Align, Lora
from selfpriority.recipe.backend import Backend, HfBackend, OpenaiBackend, ScriptedBackend
from selfpriority.recipe.evaluate import Evaluate, OtherSystem
from selfpriority.recipe.file import dump, load, parse
from selfpriority.recipe.judge import OtherJudge, Score
from selfpriority.recipe.method import Denoise, PairRules, Refine, Sample
from selfpriority.recipe.mistakes import mistake_lines
from selfpriority.recipe.prompts import Prompts
from selfpriority.recipe.recipe import Recipe
from selfpriority.recipe.section import Section

__all__ = [
    "Align",
    "Backend",
    "Denoise",
    "Evaluate",
    "HfBackend",
    "Lora",
    "OpenaiBackend",
    "OtherJudge",
    "OtherSystem",
    "PairRules",
    "Prompts",
    "Recipe",
    "Refine",
    "Sample",
    "Score",
    "ScriptedBackend",
    "Section",
    "dump",
    "load",
    "mistake_lines",
    "parse",
]
