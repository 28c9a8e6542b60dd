"""What is done as soon as somebody imports a module: nobody who does not waits for it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType


def when_imported(module: str, act: Callable[[], None]) -> None:
    """Calls `act` now, where the module is there; else behind its import, if that ever comes."""
    if module in sys.modules:
        act()
    else:
        sys.meta_path.insert(0, _Waiting(module, act))


class _Waiting(MetaPathFinder):
    """Finds nothing itself: it lets the others find the module, and acts behind its execution."""

    def __init__(self, module: str, act: Callable[[], None]) -> None:
        self._module, self._act = module, act

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        """The specification of the module that is waited for; None for every other one."""
        if name != self._module:
            return None
        sys.meta_path.remove(self)
        spec = find_spec(name)
        if spec is None or spec.loader is None:
            return None
        execute = spec.loader.exec_module

        def execute_and_act(module: ModuleType) -> None:
            execute(module)
            self._act()

        spec.loader.exec_module = execute_and_act  # type: ignore[method-assign]
        return spec
