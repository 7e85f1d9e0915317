"""The same distillation in three hands, each in a process of its own: Stilla, a plain loop, TextBrewer."""
