"""A teacher behind an address (`teacher.api` of a recipe): what keeps it from teaching, what it is asked, what that costs.

What comes of its answers is in `answered.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets import Dataset

from stilla import data
from stilla.api import Question, Store, forecast, key_of
from stilla.api.questions import filled
from stilla.data import from_all_over
from stilla.data.unlabelled import MARK
from stilla.errors import CompatibilityError, RecipeError, StillaError, all_of
from stilla.evaluate import headline_split
from stilla.objectives import term
from stilla.objectives.base import LogitObjective
from stilla.recipe import Completions, Recipe
from stilla.recipe.api import Api
from stilla.stages import completions, opinions, unlabelled
from stilla.stages.defaults import resolved_writing
from stilla.stages.unlabelled import Pool
from stilla.tasks.base import Task
from stilla.tasks.language.writing import Writes
from stilla.tasks.shared.in_words import InWords

USUAL = ("max_new_tokens", "num_beams", "batch_size", "min_log_probability", "min_tokens", "max_tokens")
"""Fields of `completions` that say how a teacher here writes."""


@dataclass(frozen=True)
class Example:
    """A question about an example of a split."""

    key: int
    question: Question


# --- what a recipe may say ---


def settled(recipe: Recipe) -> Recipe:
    """The recipe with what it leaves open: that the teacher answers for all examples, or for the unlabelled ones."""
    if recipe.teacher.api is None or recipe.completions is not None:
        return recipe
    of: Any = "all" if recipe.data.unlabelled is None else "unlabelled"
    return recipe.model_copy(update={"completions": Completions(by="teacher", of=of)})


def problems(recipe: Recipe, task: Task) -> list[str]:
    """What keeps a teacher that only answers in texts from teaching as the recipe asks, as far as it is known without one."""
    if recipe.teacher.api is None:
        return []
    found = [f"teacher.api: {why}" for why in _unasked(task)]
    found += _of_the_student(recipe)
    found += [f"{place}: {kind} asks the teacher for more than {what}, and a teacher behind an address gives no more; "
              f"expected labels (its answers){beside}, or objectives without a teacher"
              for place, kind, what, beside in _needing(recipe, task)]
    if recipe.teacher.api.reasons is not None and isinstance(task, InWords) and (why := task.unreasoned()):
        found.append(f"teacher.api.reasons: {why}; leave it out, or let a task learn them whose models write: seq2seq, or "
                     "causal-lm with prompts")
    if recipe.teacher.api.logprobs is not None and not _names_classes(task):
        found.append(f"teacher.api.logprobs: from them follows how sure it is of a class, and answers of `{task.kind}` name "
                     "none; leave it out")
    if recipe.completions is not None:
        changed = [name for name in USUAL if getattr(recipe.completions, name) != Completions.model_fields[name].default]
        found += [f"completions: got {all_of(changed)}, which say how a teacher here writes; of a teacher behind an address "
                  "teacher.api says it (max_tokens, temperature, answers)"] if changed else []
        found += completions.unfit_filter(recipe.completions)
    if recipe.cache.form not in (None, "none"):
        found.append("cache.form: nothing of a teacher behind an address is asked for while the student learns; its answers "
                     "are stored in any case (teacher.api.store). Leave it out")
    if recipe.data.unlabelled is not None and opinions.wanted(recipe.data.unlabelled):
        found.append("data.unlabelled: which examples to keep is chosen by what a teacher's logits or hidden states say, and "
                     "a teacher behind an address gives none; filter its answers (completions.keep)")
    if recipe.teacher.api.measured and isinstance(task, Writes) and not metrics_of(recipe, task):
        found.append("teacher.api.measured: by what? Name metrics of texts (evaluate: {generation: {metrics: [rougeL]}}), or "
                     "leave it out")
    if recipe.personal is not None:
        found.append("personal: parts of the student learn from a teacher's logits, and a teacher behind an address gives "
                     "none; leave it out")
    if recipe.evaluate.saliency is not None:
        found.append("evaluate.saliency: what the answers of a teacher behind an address rest on, nobody sees; leave it out")
    if any(stage.unlabelled is not None for stage in recipe.distill):
        found.append("distill.unlabelled: answered examples are labelled ones, so that there is no share of others; leave it "
                     "out")
    return found


def _unasked(task: Task) -> list[str]:
    if not isinstance(task, InWords) or not task.shown:
        return [f"it answers in texts, and nothing that `{task.kind}` learns can be read from them; expected causal-lm with "
                "prompts or conversations, seq2seq or text-classification"]
    why = task.unasked()
    return [] if why is None else [why]


def _of_the_student(recipe: Recipe) -> list[str]:
    spec = recipe.student
    if spec.model is None:
        return ["student: a teacher behind an address has no layers that could be cut and no config that could be changed; "
                "expected a model of its own (`student: {model: ./small}`)"]
    if spec.vocabulary is not None:
        return ["student.vocabulary: it is of a teacher's tokens, and nobody knows those of a teacher behind an address; "
                "leave it out, and cut the finished student in a run of its own"]
    return []


def _names_classes(task: Task) -> bool:
    return isinstance(task, InWords) and not isinstance(task, Writes)


def _needing(recipe: Recipe, task: Task) -> Iterator[tuple[str, str, str, str]]:
    """Objectives that ask a teacher while the student learns for what it does not say; what that is, and what would do.

    What is wrong with them by themselves is said elsewhere.
    """
    told = api_of(recipe).logprobs is not None
    what = "how likely each class is" if told else "texts"
    beside = ", logits" if told else ", logits with teacher.api.logprobs" if _names_classes(task) else ""
    for number, stage in enumerate(recipe.distill):
        for index, spec in enumerate(stage.objectives or ()):
            try:
                asked = term(spec).objective
            except StillaError:
                continue
            if asked.needs_teacher and not (told and isinstance(asked, LogitObjective) and not asked.needs_stacks):
                place = "distill" if len(recipe.distill) == 1 else f"distill[{number}]"
                yield f"{place}.objectives[{index}]", spec.kind, what, beside


# --- what is asked ---


def store_of(recipe: Recipe) -> Path:
    """Where the answers lie."""
    api = api_of(recipe)
    return Path(api.store) if api.store is not None else Path(recipe.output) / "answers"


def to_ask(recipe: Recipe, task: Task, splits: Mapping[str, Dataset], pool: Pool | None) -> Dataset:
    """The training examples that are asked about."""
    if not recipe.all_written and pool is not None:
        return data.joined(None, pool.data)
    return unlabelled.together(task, splits, pool)


def questions(recipe: Recipe, task: Task, split: Dataset, *, once: bool = False) -> list[Example]:
    """About every example, `once` or as often as the recipe wants answers.

    Raises:
        RecipeError: a template with a name that there is no column for.
        CompatibilityError: a conversation that cannot be sent.
    """
    api, words = api_of(recipe), words_of(task)
    template = _question(api, words) if api.template is None else api.template
    plain, found = split.with_format(None), list[Example]()
    for key in map(int, words.askable(split)):
        talk = words.talk_of(split, key)
        if talk is None:
            row = {name: value for name, value in plain[key].items() if name != MARK}
            talk = [{"role": "user", "content": filled(template, {
                **row, "source": words.source_of(split, key), **words.values_of()})}]
        elif api.template is not None:
            raise RecipeError("teacher.api.template: conversations are sent as they are; leave it out, or say what comes "
                              "before them in teacher.api.system")
        found += [Example(key, Question.of(api, recipe.teacher.model, talk, number))
                  for number in range(1 if once else api.answers)]
    return found


def _question(api: Api, words: InWords) -> str:
    if api.reasons is None:
        return words.question
    answer = api.reasons.answer.replace("{", "{{").replace("}", "}}")
    return f"{words.question}\n\nFirst give your reason. Then write {answer} and behind it the answer alone."


def measured(recipe: Recipe, splits: Mapping[str, Dataset]) -> Dataset | None:
    """The examples by which the teacher's answers are judged, if it is to be."""
    there, number = data.to_measure(splits), api_of(recipe).measured
    return from_all_over(there[headline_split(list(there))], number) if number else None


def looked_at(recipe: Recipe, task: Task, splits: Mapping[str, Dataset], pool: Pool | None) -> tuple[list[str], list[str]]:
    """For `stilla check`: problems, and notes on what the answers will cost."""
    api = api_of(recipe)
    wrong = list[str]()
    asked = [one.question for one in questions(recipe, task, to_ask(recipe, task, splits, pool))]
    some = measured(recipe, splits)
    asked += [] if some is None else [one.question for one in questions(recipe, task, some, once=True)]
    cost = forecast(api, asked, Store(store_of(recipe), api.price))
    try:
        if cost.requests:
            key_of(api)
    except RecipeError as error:
        wrong += error.problems
    notes = [f"teacher: {recipe.teacher.model} behind {api.url}; its answers are what the student learns, and their terms of "
             "use have to allow that (docs/api.md)", f"teacher.api: {cost}"]
    if api.ceiling is not None and cost.likely is not None and cost.most is not None:
        left = api.ceiling - cost.spent
        if cost.likely > left:
            wrong.append(f"teacher.api.ceiling: {api.ceiling:g} is the limit, {cost.spent:.4g} are spent, and the rest costs "
                         f"about {cost.likely:.4g}, so that the run would stop before its end; raise it, or ask less "
                         "(data.limit, answers, max_tokens)")
        elif cost.most > left:
            notes.append("teacher.api.ceiling: it is enough for what is likely, and not for the most; the run stops where it "
                         "is reached, and goes on with a higher one")
    return wrong, notes


def metrics_of(recipe: Recipe, task: Task) -> tuple[str, ...]:
    """Of texts."""
    section = resolved_writing(recipe.evaluate, task).writing
    return () if section is None else section.metrics or ()


def api_of(recipe: Recipe) -> Api:
    assert recipe.teacher.api is not None
    return recipe.teacher.api


def words_of(task: Task) -> InWords:
    if not isinstance(task, InWords):
        raise CompatibilityError(_unasked(task)[0])
    return task
