"""Recipes: what a run is, as YAML over the typed settings of its parts.

schema      Recipe, its identity and its rows; load, build, digest
read        YAML over its base, key=value over both
text        YAML's text as plain values
kinds       what kind of value each setting holds
first       the first defaults, which identities are measured from
renamed     keys that had other names once, or are gone
sections    the settings that no other part of duo owns
pretrained  a pretrained model's shape, as a recipe's values
published   a published backbone's digest, which may be typed shortened
help        every setting with its default and its sentence
"""

from duo.recipe.first import BACKBONE
from duo.recipe.read import recipes, short_name
from duo.recipe.renamed import OldKey
from duo.recipe.schema import Recipe, build, digest, load, name_group

__all__ = ["BACKBONE", "OldKey", "Recipe", "build", "digest", "load", "name_group", "recipes", "short_name"]
