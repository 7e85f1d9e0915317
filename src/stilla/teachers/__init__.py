"""Where the teacher's signals come from."""

from stilla.teachers.cached import CachedTeacher
from stilla.teachers.capture import CapturingTeacher, capture
from stilla.teachers.keeping import Keep
from stilla.teachers.live import LiveTeacher, Teacher
from stilla.teachers.said import SaidTeacher

__all__ = ["CachedTeacher", "CapturingTeacher", "Keep", "LiveTeacher", "SaidTeacher", "Teacher", "capture"]
