"""Where the teacher's signals come from."""

from stilla.teachers.live import LiveTeacher, Teacher

__all__ = ["LiveTeacher", "Teacher"]
