"""`python -m selfpriority` is `spa`."""

from selfpriority.cli import main

if __name__ == "__main__":
    main()
