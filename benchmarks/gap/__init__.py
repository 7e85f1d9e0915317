"""How much of the gap between labels alone and the teacher distillation closes: many cases, many ways, paired seeds."""
