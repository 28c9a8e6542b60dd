"""The repository stays light: no file over 1 MB enters it, but the artefacts listed here.

python tests/sizes.py FILE ...    names those that are too large; pre-commit runs it on what is committed
"""

import sys
from fnmatch import fnmatch
from pathlib import Path

MOST = 1_000_000  # bytes
ARTEFACTS = ("leaderboard/backbones/*/weights.safetensors", "leaderboard/tokens/*/tokens.safetensors")


def too_large(files):
    """The files that are over the limit and no listed artefact."""
    return [
        name
        for name in files
        if not any(fnmatch(name, pattern) for pattern in ARTEFACTS)
        and Path(name).is_file()
        and Path(name).stat().st_size > MOST
    ]


if __name__ == "__main__":
    found = too_large(sys.argv[1:])
    for name in found:
        print(f"{name} is larger than {MOST:,} bytes: leave it out, or list it in tests/sizes.py")
    sys.exit(bool(found))
