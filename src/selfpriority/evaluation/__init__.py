"""Who is better on held-out prompts: answers, their behaviour, the comparison of systems (docs/evaluation.md)."""
