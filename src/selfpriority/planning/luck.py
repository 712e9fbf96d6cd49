"""How many prompts are consistent where a refinement is no better than a candidate: what recipes are sized by.

An assumption, which a pilot replaces by a measurement. Knows settings; asks nobody.
"""

from __future__ import annotations

from math import ceil, comb

from selfpriority.recipe import Recipe


def lucky_share(recipe: Recipe) -> float:
    """Share of the prompts whose best refinement beats as many candidates as the recipe asks for, all being alike.

    Of n candidates and m refinements in any order, that the n - k + 1 highest are all candidates, so that no refinement
    beats k of them: C(m + k - 1, m) / C(n + m, m). Strict with one refinement: one in n + 1.
    """
    rule, n, m = recipe.denoise.consistency, recipe.sample.n, recipe.refine.n
    if rule == "off":
        return 1.0
    k = n if rule == "strict" else ceil(float(rule) * n)
    return 1 - comb(m + k - 1, m) / comb(n + m, m)
