"""The rivals by the name that `align.rows` calls them; a further one is a file beside this and a line here."""

from __future__ import annotations

from collections.abc import Mapping

from selfpriority.rivals.meta_aligner import META_ALIGNER
from selfpriority.rivals.meta_rewarding import META_REWARDING
from selfpriority.rivals.online import ONLINE
from selfpriority.rivals.ric import RIC
from selfpriority.rivals.rows import Rows
from selfpriority.rivals.self_criticism import SELF_CRITICISM

RIVALS: Mapping[str, Rows] = {
    "self_criticism": SELF_CRITICISM,
    "ric": RIC,
    "meta_aligner": META_ALIGNER,
    "meta_rewarding": META_REWARDING,
    "prompts": ONLINE,
}
