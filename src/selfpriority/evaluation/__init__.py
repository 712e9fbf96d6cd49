"""Who is better on held-out prompts: answers, their behaviour, the comparison of systems (method.md 7)."""
