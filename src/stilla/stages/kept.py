"""What a student still knows of the task that its start was made for, measured beside what it has learnt since."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace

from datasets import Dataset
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from stilla import data, tasks
from stilla.errors import RecipeError, StillaError, TrustError
from stilla.evaluate import Asked, examine, headline_split
from stilla.evaluate.quality import Asked as Measured
from stilla.evaluate.quality import Resampling, bootstrap
from stilla.recipe import Recipe
from stilla.recipe.file import read
from stilla.recipe.yaml import flow
from stilla.runtime.narrate import say
from stilla.scores import Kept, Scores, metric_title
from stilla.stages.compared import VALIDATION
from stilla.stages.folder import RunFolder
from stilla.stages.measuring import place
from stilla.stages.origin import from_anywhere
from stilla.stages.starting import saved_student
from stilla.stages.transfer import first_run
from stilla.tasks.answers import Answers
from stilla.tasks.base import Loaded, Task
from stilla.tasks.shared.label_order import names_of


def said_in(scores: Scores, recipe: Recipe, student: Loaded, baseline: Loaded | None) -> Scores:
    """The scores with what student and baseline have kept of the task of their start, or why nobody can say."""
    run = first_run(recipe)
    if run is None:
        return scores
    try:
        made = {"student": student, **({} if baseline is None else {"baseline": baseline})}
        kept = _measured(run, recipe, made)
    except TrustError as error:
        return _noted(scores, f"kept of {run.path}: not measured, as its recipe names code: {error}")
    except StillaError as error:
        return _noted(scores, f"kept of {run.path}: not measured: {error}")
    return replace(_noted(scores, in_words(kept)), kept=kept)


def in_words(kept: Kept) -> str:
    """A sentence for terminal, page and card."""
    how = "as it is, as its labels are the same" if kept.whole else "its head of then on the body of now"
    after = ", ".join(f"{one} after the {name}'s training ({kept.lost[name]} against before)"
                      for name, one in kept.after.items())
    return (f"kept of {kept.run} ({kept.task}, {kept.examples:,} {kept.split} examples): {metric_title(kept.metric)} "
            f"{kept.before} before, {after}; {how}")


def _noted(scores: Scores, note: str) -> Scores:
    say(note)
    return replace(scores, notes=(*scores.notes, note))


def _measured(run: RunFolder, recipe: Recipe, made: Mapping[str, Loaded]) -> Kept:
    """The first task's own data, asked of its student and of what has become of that.

    Raises:
        StillaError: it cannot be asked: its data are gone, another tokenizer, another body.
    """
    first = from_anywhere(read(run.recipe, [f"output={flow(str(run.path))}"], trusted=()), run)
    splits = data.to_measure(data.load(first.data, seed=first.seed, teachers=first.teacher.own_data))
    task = tasks.of_recipe(first, splits)
    before = saved_student(first, run, task, "student", 0)
    task = task.adapted_to(before)
    subjects: dict[str, Loaded] = {"before": before}
    whole = True
    for name, one in made.items():
        moved, same = _moved(before, one)
        subjects[name], whole = replace(before, model=moved), whole and same
    split = headline_split(list(splits))
    place(list(subjects.values()))
    answers = _answers(task, splits, split, subjects, first.evaluate.batch_size)
    exam = task.exam()
    metric = next((one for one in exam.metrics() if one.name == first.evaluate.metric), exam.metrics()[0])
    asked = {name: Measured(metric, [metric.statistics(one.given, one.references)]) for name, one in answers.items()}
    found = bootstrap(asked, Resampling(len(answers["before"]), recipe.evaluate.resamples, recipe.seed))
    return Kept(
        run=str(run.path), task=task.kind, metric=metric.name, split=split,
        examples=len(splits[split]), before=found["before"].interval(recipe.seed), whole=whole,
        after={name: found[name].interval(recipe.seed) for name in made},
        lost={name: (found[name] - found["before"]).interval(recipe.seed) for name in made})


def _answers(
    task: Task, splits: Mapping[str, Dataset], split: str, subjects: Mapping[str, Loaded], batch_size: int
) -> dict[str, Answers]:
    """To the headline split, with what each chooses on validation data where the task has it choose."""
    processor, exam = subjects["before"].processor, task.exam()
    said = {}
    for name in {split, *([VALIDATION] if task.settles and VALIDATION in splits else [])}:
        prepared = task.prepare(splits[name], processor, None, training=False)
        device = next(subjects["before"].model.parameters()).device
        said[name] = examine(exam, {who: Asked(one.model) for who, one in subjects.items()}, prepared,
                             batch_size=batch_size, device=device, title=f"what is kept: {name}")
    if VALIDATION not in said or split == VALIDATION:
        return dict(said[split])
    return {who: exam.settled(one, said[VALIDATION][who]) for who, one in said[split].items()}


def _moved(before: Loaded, after: Loaded) -> tuple[nn.Module, bool]:
    """The first model with the body of the second; or the second itself, where its labels are those of the first.

    Raises:
        RecipeError: their bodies, or the tokens that they read, are not the same.
    """
    one, other = before.model, after.model
    if not (isinstance(one, PreTrainedModel) and isinstance(other, PreTrainedModel)):
        raise RecipeError("only of models of transformers it is known what is body and what is head")
    tokenizers = [getattr(loaded.processor, "tokenizer", loaded.processor) for loaded in (before, after)]
    vocabularies = [each.get_vocab() for each in tokenizers if isinstance(each, PreTrainedTokenizerBase)]
    if len(vocabularies) == 2 and vocabularies[0] != vocabularies[1]:
        raise RecipeError("it reads other tokens now than then")
    if type(one) is type(other) and names_of(one.config) is not None and names_of(one.config) == names_of(other.config):
        return other, True
    moved = copy.deepcopy(one)
    body, now = moved.base_model.state_dict(), other.base_model.state_dict()
    lost = [name for name, tensor in body.items() if name not in now or now[name].shape != tensor.shape]
    # a pooler belongs to the head: models without use for one have none
    lost = [name for name in lost if not (name not in now and "pooler" in name)]
    if lost or moved.base_model is moved:
        raise RecipeError(f"its body is another now: `{(lost or ['base_model'])[0]}` has no counterpart")
    moved.base_model.load_state_dict({**body, **{name: now[name] for name in body if name in now}})
    return moved, False
