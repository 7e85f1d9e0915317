"""`python -m stilla`, and `accelerate launch -m stilla run recipe.yaml`."""

from stilla.cli import main

if __name__ == "__main__":
    main()
