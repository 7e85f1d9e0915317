"""`stilla cache`: looking after what a teacher said."""

from __future__ import annotations

from typing import Annotated

import typer

from stilla.cli import options

app = typer.Typer(
    no_args_is_help=True,
    help="Look at, check or tidy what a teacher said and `stilla capture` or a run has stored.",
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode=None,
)


DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say what would be removed.")]


@app.command()
def info(path: options.CachePath) -> None:
    """Show what a cache holds: of which teacher, in which form, how much; hidden states beside it included."""
    from stilla.cache import exists
    from stilla.cache.care import contents
    from stilla.cache_choice import states_place
    from stilla.cli.printing import print_cache

    for place in [one for one in (path, states_place(path)) if exists(one)] or [path]:
        print_cache(place, contents(place))


@app.command()
def verify(path: options.CachePath) -> None:
    """Read every byte of a cache and name every file that is damaged or not of it."""
    from stilla.cache.care import verify as every_file
    from stilla.cli.printing import show

    files = list(every_file(path))
    wrong = [(name, problem) for name, problem in files if problem]
    for name, problem in wrong:
        show(f"{name}: {problem}")
    if wrong:
        show(f"{len(wrong)} of {len(files)} files are wrong. `stilla cache prune {path}` removes what cannot be used; the "
             "next capture, or the next run, makes only that anew.")
        raise typer.Exit(2)
    show(f"All {len(files)} files are as they were written.")


@app.command()
def prune(path: options.CachePath, dry_run: DryRun = False) -> None:
    """Remove what cannot be used: damaged files, files that are there twice, what killed writers left."""
    from stilla.cache.care import prune as remove
    from stilla.cli.printing import show

    gone = remove(path, dry_run=dry_run)
    for name, problem in gone:
        show(f"{name}: {problem}")
    show(f"{len(gone)} files {'would be' if dry_run else 'were'} removed." if gone else "Nothing to remove.")
