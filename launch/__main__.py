"""`python -m launch` is `temper`."""

from launch.cli import main

if __name__ == "__main__":
    main()
