"""Students: a specification becomes a model and the map of its layers to the teacher's."""

from stilla.students.fresh import fresh
from stilla.students.given import given
from stilla.students.layers import by_layers, entire
from stilla.students.lora import has_adapters, merged, put_back, with_adapters
from stilla.students.student import LayerMap, Student, automatic_layer_map

__all__ = ["LayerMap", "Student", "automatic_layer_map", "by_layers", "entire", "fresh", "given", "has_adapters", "merged",
           "put_back", "with_adapters"]
