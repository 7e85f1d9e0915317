"""What a task says, by what it is about: its rows, its teacher, its students, files of them, examples without labels."""
