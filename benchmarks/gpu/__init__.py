"""What has to hold on a GPU, and how fast and large it is there: one command, its results in two files."""
