"""Where the teacher's signals come from."""

from stilla.teachers.cached import CachedTeacher
from stilla.teachers.capture import CapturingTeacher, capture, capturing
from stilla.teachers.keeping import Keep
from stilla.teachers.live import LiveTeacher, Teacher
from stilla.teachers.remembering import Remembering, RememberingParts
from stilla.teachers.said import SaidTeacher

__all__ = ["CachedTeacher", "CapturingTeacher", "Keep", "LiveTeacher", "Remembering", "RememberingParts", "SaidTeacher",
           "Teacher", "capture", "capturing"]
