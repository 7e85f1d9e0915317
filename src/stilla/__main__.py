"""`python -m stilla`, and `accelerate launch -m stilla run recipe.yaml`."""

from stilla.cli import program

if __name__ == "__main__":
    program()
