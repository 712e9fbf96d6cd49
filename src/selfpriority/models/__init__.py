"""Models by name: finding their files, knowing their content and opening them, for answers and for training alike."""
