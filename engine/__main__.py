"""A rank's door: `python -m engine VERB ...`, under `accelerate launch` or alone."""

from engine.cli import main

if __name__ == "__main__":
    main()
