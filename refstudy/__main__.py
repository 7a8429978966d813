"""``refstudy`` and ``python -m refstudy``: the command line, which Ctrl-C ends in one line from its first import on."""

import sys


def main() -> None:
    """Run the command line; Ctrl-C ends it with exit status 130."""
    try:
        from refstudy.cli import main as command_line

        command_line()
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
