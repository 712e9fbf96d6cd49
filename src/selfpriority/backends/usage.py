"""What a server says that it read and wrote, summed, and what that costs. Unknown stays unknown."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from selfpriority.recipe import Prices

_MILLION = 1_000_000


@dataclass
class Usage:
    """Sums over replies."""

    requests: int = 0
    """Replies that were read."""
    read: int = 0
    """Tokens of prompts."""
    known: int = 0
    """Tokens of prompts that the server had in its own cache."""
    written: int = 0
    """Tokens of answers, thinking included."""
    uncounted: int = 0
    """Replies that said nothing of their tokens."""
    charged: float = 0.0
    """What the server itself said that its replies cost."""
    uncharged: int = 0
    """Replies that said nothing of their cost."""

    def add(self, reply: Any) -> None:
        """Counts a reply of the protocol; what is no count counts as nothing said."""
        usage = reply.get("usage") if isinstance(reply, dict) else None
        told = usage if isinstance(usage, dict) else {}
        read, written = _number(told.get("prompt_tokens")), _number(told.get("completion_tokens"))
        cost = _number(told.get("cost"))
        details = told.get("prompt_tokens_details")
        known = _number(details.get("cached_tokens")) if isinstance(details, dict) else None
        self.requests += 1
        if read is None or written is None:
            self.uncounted += 1
        else:
            self.read, self.written = self.read + int(read), self.written + int(written)
            self.known += int(known or 0)
        if cost is None:
            self.uncharged += 1
        else:
            self.charged += cost

    def cost(self, prices: Prices | None) -> float | None:
        """Of all replies, as the server says or else by the recipe's prices; None where either leaves some unknown."""
        if self.requests and not self.uncharged:
            return self.charged
        if prices is None or self.uncounted:
            return None
        known = prices.read if prices.known is None else prices.known
        fresh = max(0, self.read - self.known)
        return (fresh * prices.read + self.known * known + self.written * prices.written) / _MILLION

    def told(self, prices: Prices | None) -> str:
        """The sums in half a line."""
        tokens = f"{self.read:,} tokens read"
        if self.known:
            tokens += f" ({self.known:,} of them from its cache)"
        tokens += f", {self.written:,} written"
        if self.uncounted == self.requests:
            tokens = "tokens not told"
        elif self.uncounted:
            tokens += f" (without {self.uncounted:,} replies that did not say)"
        cost = self.cost(prices)
        if cost is None:
            why = "no backend.prices" if prices is None else "not every reply counted its tokens"
            return f"{self.requests:,} requests, {tokens}, cost unknown ({why})"
        return f"{self.requests:,} requests, {tokens}, cost {cost:,.4g}"


def _number(value: Any) -> float | None:
    return float(value) if type(value) in (int, float) and 0 <= value < 1e15 else None
