"""Recipes: what a run is, as YAML over the typed settings of its parts."""

from duo.recipe.read import recipes
from duo.recipe.schema import Recipe, build, digest, load

__all__ = ["Recipe", "build", "digest", "load", "recipes"]
