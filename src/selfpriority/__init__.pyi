"""The public names and where each lives: the one list, read by type checkers and, at run time, by lazy_loader."""

from .constitution import (
    Anchor as Anchor,
    Constitution as Constitution,
    Objective as Objective,
    load_constitution as load_constitution,
    shipped_constitutions as shipped_constitutions,
)
from .errors import (
    InputError as InputError,
    JudgeRefused as JudgeRefused,
    SelfPriorityError as SelfPriorityError,
    WorkFailed as WorkFailed,
)
from .evaluation.records import Summary as Summary
from .judges.heads import Heads as Heads, read_heads as read_heads
from .judges.probe import ProbeJudge as ProbeJudge
from .judges.python import AnswerToRate as AnswerToRate, RateAnswers as RateAnswers
from .judges.reward import RewardJudge as RewardJudge
from .judges.words import WordsJudge as WordsJudge
from .language_model import LanguageModel as LanguageModel
from .library import (
    evaluate as evaluate,
    open_judge as open_judge,
    open_model as open_model,
    run_recipe as run_recipe,
    train as train,
)
from .method.denoise import denoise as denoise
from .method.loss import (
    gap_weights as gap_weights,
    pair_losses as pair_losses,
    pair_shares as pair_shares,
    reward as reward,
)
from .method.pair import pair as pair
from .method.refine import refine as refine
from .method.sample import sample as sample
from .method.score import score as score
from .personas import Persona as Persona, load_personas as load_personas
from .prompts import load_prompts as load_prompts, shipped_prompts as shipped_prompts
from .preferences import PreferenceRow as PreferenceRow
from .rating import Item as Item, Judge as Judge
from .recipe import (
    Align as Align,
    ByProbe as ByProbe,
    ByPython as ByPython,
    ByReward as ByReward,
    Denoise as Denoise,
    Evaluate as Evaluate,
    HfBackend as HfBackend,
    InWords as InWords,
    OpenaiBackend as OpenaiBackend,
    PairRules as PairRules,
    Prompts as Prompts,
    Recipe as Recipe,
    Refine as Refine,
    Sample as Sample,
    Score as Score,
    RayBackend as RayBackend,
    VllmBackend as VllmBackend,
    load_recipe as load_recipe,
)
from .records import (
    Candidates as Candidates,
    Drop as Drop,
    Message as Message,
    Pair as Pair,
    PairedPool as PairedPool,
    Pool as Pool,
    Prompt as Prompt,
    Rating as Rating,
    Response as Response,
    Scored as Scored,
    Sifted as Sifted,
    Unrated as Unrated,
)
from .results import Results as Results

__version__: str
__all__: list[str]
