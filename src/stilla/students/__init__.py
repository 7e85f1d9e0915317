"""Students: a specification becomes a model and the map of its layers to the teacher's."""

from stilla.students.fresh import fresh
from stilla.students.given import given
from stilla.students.importance import importance
from stilla.students.layers import by_layers, entire, with_layers
from stilla.students.lora import has_adapters, merged, put_back, with_adapters
from stilla.students.moved import freeze, interpolate
from stilla.students.parts import numbers_of, part_of, read_part, write_part
from stilla.students.student import LayerMap, Student, automatic_layer_map
from stilla.students.towards import Towards
from stilla.students.width import Cut, Plan, by_width, first_units

__all__ = ["Cut", "LayerMap", "Plan", "Student", "Towards", "automatic_layer_map", "by_layers", "by_width", "entire",
           "first_units", "freeze", "fresh", "given", "has_adapters", "importance", "interpolate", "merged", "numbers_of",
           "part_of", "put_back", "read_part", "with_adapters", "with_layers", "write_part"]
