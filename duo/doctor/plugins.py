"""Whether every router that a package registers loads."""

from __future__ import annotations

from collections.abc import Iterator

from duo.doctor.finding import Finding
from duo.routing import registry
from duo.routing.registry import describe_error


def routers() -> Iterator[Finding]:
    """The routers of each package that load, and each that does not, with the reason."""
    packages: dict[str, list[str]] = {}
    broken = []
    for name, points in registry.available().items():
        who = " and ".join(map(registry.package, points))
        try:
            registry.load(name)
            packages.setdefault(who, []).append(name)
        except (Exception, SystemExit) as error:  # a stranger's code
            said = str(error) if isinstance(error, ValueError) else describe_error(error)
            broken.append(Finding(name, f"of {who}: broken", " ".join(said.split())))
    for who, names in packages.items():
        yield Finding(who, f"{len(names)} load: {', '.join(names)}")
    yield from broken
    if not packages:
        yield Finding("none", "no router loads", "no router loads: pip install duo-llm again, or pip install -e .")
