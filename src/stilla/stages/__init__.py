"""What a run does, one file a stage, and the folder that it is kept in."""
