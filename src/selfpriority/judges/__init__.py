"""Who rates answers, what is fitted to labelled answers, and whether a judge is worth listening to."""
