"""`python -m onebit_distill`, alone or under torchrun."""

from . import cli
from .system.processes import leave


def main() -> None:
    leave(cli.main())


if __name__ == "__main__":
    main()
