"""The training room: pools in, a policy out. Its unit is the pool with its pairs (docs/method.md)."""
