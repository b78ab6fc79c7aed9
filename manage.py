#!/usr/bin/env python3
"""The project's command line: ``python manage.py help`` lists the commands."""

import os
import sys


def main() -> int:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "terrain.settings")
    try:
        from terrain.cli import run
    except ImportError as error:
        print(
            f"{error}. Install what the project needs with: make install"
            " (or activate the virtual environment: . .venv/bin/activate).",
            file=sys.stderr,
        )
        return 2
    return run(sys.argv)


if __name__ == "__main__":
    sys.exit(main())
