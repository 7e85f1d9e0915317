"""This machine and this process: what is said, other processes, versions, a person's own code by name."""
