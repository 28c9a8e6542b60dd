"""python -m duo.lm_eval --model duo --model_args run=RUN --tasks TASK,...: lm-eval's own command, which knows duo."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import duo  # noqa: F401 # registers the model


def main(arguments: Sequence[str]) -> int:
    """The command; returns its exit status."""
    try:
        from lm_eval.__main__ import cli_evaluate
    except ImportError:
        print("python -m duo.lm_eval needs lm-eval: pip install 'duo-llm[eval]'", file=sys.stderr)
        return 1
    from duo.report.command import run_command

    def work() -> int:
        sys.argv = ["lm_eval", *arguments]
        cli_evaluate()
        return 0

    return run_command(work)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
