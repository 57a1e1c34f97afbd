"""`python -m onebit_distill`, alone or under torchrun."""

from . import cli
from .system.processes import end_on_sigterm, leave


def main() -> None:
    end_on_sigterm()
    leave(cli.main())


if __name__ == "__main__":
    main()
