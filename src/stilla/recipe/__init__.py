"""The recipe: what a person asks for. Its sections are re-exported here; reading, writing and words stand in modules.

Nothing in this wing needs torch or the network.
"""

from stilla.recipe.adapt import Adapt
from stilla.recipe.data import Data, Named, PerClass, Split, Unlabelled
from stilla.recipe.evaluate import TEXT_METRICS, Evaluate, Generation, Reasons
from stilla.recipe.generating import Generate
from stilla.recipe.learning import Cache, Completions, ObjectiveSpec, Stage
from stilla.recipe.models import Average, Dropout, Layers, Lora, ModelSource, StudentSpec, Teacher, Training
from stilla.recipe.personal import Personal
from stilla.recipe.reptile import Reptile
from stilla.recipe.search import Range, Search, Until
from stilla.recipe.section import Scheduled, Section, Strings
from stilla.recipe.vocabulary import VocabularySpec
from stilla.recipe.weights import Interpolate, Pull
from stilla.recipe.whole import Recipe, long_form, recipe_for
from stilla.recipe.width import Width

__all__ = [
    "TEXT_METRICS",
    "Adapt",
    "Average",
    "Cache",
    "Completions",
    "Data",
    "Dropout",
    "Evaluate",
    "Generate",
    "Generation",
    "Interpolate",
    "Layers",
    "Lora",
    "ModelSource",
    "Named",
    "ObjectiveSpec",
    "PerClass",
    "Personal",
    "Pull",
    "Range",
    "Reasons",
    "Recipe",
    "Reptile",
    "Scheduled",
    "Search",
    "Section",
    "Split",
    "Stage",
    "Strings",
    "StudentSpec",
    "Teacher",
    "Training",
    "Unlabelled",
    "Until",
    "VocabularySpec",
    "Width",
    "long_form",
    "recipe_for",
]
