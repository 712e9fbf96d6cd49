"""Preference data of one's own: a file of chosen and rejected answers in, pools and their pairs out."""
