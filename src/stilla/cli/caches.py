"""`stilla cache`: looking after what a teacher said."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Annotated

import typer

from stilla.cli import options
from stilla.errors import counted

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
    from stilla.cache.care import contents
    from stilla.cli.printing import print_cache

    for place in _places(path):
        print_cache(place, contents(place))


@app.command()
def verify(path: options.CachePath) -> None:
    """Read every byte of a cache, hidden states beside it included, and name every file that is damaged or not of it."""
    from stilla.cache.care import verify as every_file
    from stilla.cli.printing import show
    from stilla.errors import CacheError, all_at_once

    files, refused = _of_all(path, every_file)
    wrong = [(name, problem) for name, problem in files if problem]
    for name, problem in wrong:
        show(f"{name}: {problem}")
    if wrong:
        show(f"{len(wrong)} of {len(files)} files are wrong. `stilla cache prune {path}` removes what cannot be used; the "
             "next capture, or the next run, makes only that anew.")
    if refused:
        raise all_at_once(refused, CacheError)
    if wrong:
        raise typer.Exit(2)
    show(f"All {len(files)} files are as they were written.")


@app.command()
def prune(path: options.CachePath, dry_run: DryRun = False) -> None:
    """Remove what cannot be used: damaged files, files that are there twice, what killed writers left; of hidden states
    beside it too."""
    from stilla.cache.care import prune as remove
    from stilla.cli.printing import show
    from stilla.errors import CacheError, all_at_once

    gone, refused = _of_all(path, lambda place: remove(place, dry_run=dry_run))
    for name, problem in gone:
        show(f"{name}: {problem}")
    if gone:
        show(f"{counted(len(gone), 'file')} {'would be' if dry_run else 'were'} removed.")
    if refused:
        raise all_at_once(refused, CacheError)
    if not gone:
        show("Nothing to remove.")


Files = list[tuple[str, str | None]]


def _of_all(path: str, look: Callable[[str], Iterable[tuple[str, str | None]]]) -> tuple[Files, list[str]]:
    """What `look` finds of the files of all caches there, and why one could not be looked at: that hides no other's."""
    from stilla.errors import CacheError

    files: Files = []
    refused = []
    for place in _places(path):
        try:
            files += [(f"{place}/{name}", problem) for name, problem in look(place)]
        except CacheError as error:
            refused.append(str(error))
    return files, refused


def _places(path: str) -> list[str]:
    """The caches there: answers, or those to each of several tasks, and the hidden states within each; of a run's folder,
    those in it."""
    from pathlib import Path

    from stilla.cache import Place, exists
    from stilla.runtime.paths import meant
    from stilla.stages.folder import RunFolder

    def within(place: Place, depth: int) -> list[str]:
        below = [found for one in place.within() for found in within(one, depth - 1)] if depth else []
        return [*([place.path] if exists(place) else []), *below]

    path = meant(path)
    return within(Place(RunFolder(Path(path)).cache), 2) or within(Place(path), 2) or [path]
