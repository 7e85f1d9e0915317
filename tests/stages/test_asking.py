"""What a teacher behind an address is asked about examples, and what of its answers becomes a target."""

from __future__ import annotations

import dataclasses
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset

from stilla.api import REJECTED, Reply, Store
from stilla.check import places
from stilla.check.places import missing_packages
from stilla.data.unlabelled import MARK
from stilla.errors import DataError, RecipeError
from stilla.recipe import Recipe
from stilla.recipe.file import from_options
from stilla.signals import Batch, Dense
from stilla.stages import answered, asking
from stilla.stages.defaults import objectives_of
from stilla.stages.unlabelled import Pool
from stilla.tasks.language.sections import Seq2SeqData
from stilla.tasks.language.seq2seq import Seq2Seq
from stilla.tasks.language.translations import CUT
from stilla.tasks.language.weighed import weights_in
from stilla.tasks.text.sections import TextClassificationData
from stilla.tasks.text.text_classification import TextClassification
from stilla.teachers import SaidTeacher

SPLIT = Dataset.from_dict({"source": ["one", "two", "three"], "target": ["a", "b", "c"]})
TEXTS = Dataset.from_dict({"text": ["good", "bad", "so"], "label": ["yes", "no", "yes"]})


def recipe_of(folder: Path, api: dict[str, Any] | None = None, task: str = "seq2seq", **more: Any) -> Recipe:
    data = {"train": "x", **more.pop("data", {})}
    return asking.settled(from_options({
        "task": task, "data": data, "student": {"model": "./s"}, "output": str(folder / "run"),
        "teacher": {"model": "m", "api": {"url": "http://x/v1", "store": str(folder), **(api or {})}}, **more}))


def texts_of() -> Seq2Seq:
    return Seq2Seq.understand(Seq2SeqData(train="x"), {"train": SPLIT})


def stored(folder: Path, recipe: Recipe, task: Any, split: Dataset, replies: list[Reply], pool: Pool | None = None) -> None:
    asked = asking.questions(recipe, task, asking.to_ask(recipe, task, {"train": split}, pool))
    with Store(folder) as store:
        for one, reply in zip(asked, replies, strict=True):
            store.end(one.question.key, reply, one.question.messages)


def test_a_template_is_filled_with_an_examples_columns(tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path, {"template": "{source}? Not {target}!", "system": "s", "answers": 2})
    asked = asking.questions(recipe, texts_of(), SPLIT)
    assert [one.key for one in asked] == [0, 0, 1, 1, 2, 2]
    assert asked[0].question.messages == [{"role": "system", "content": "s"}, {"role": "user", "content": "one? Not a!"}]
    assert asked[0].question.key != asked[1].question.key
    with pytest.raises(RecipeError, match=r"got \{sauce\}; expected source or target.*Did you mean source"):
        asking.questions(recipe_of(tmp_path, {"template": "{sauce}"}), texts_of(), SPLIT)


def test_answers_become_targets_and_what_is_left_out_is_counted(tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path, {"answers": 3})
    replies = [Reply(" x "), Reply("x"), Reply("y", "length"), Reply(""), Reply("", "stop", "no"), Reply("As an AI, no."),
               Reply("", REJECTED, "too long"), Reply("z"), Reply("Z")]
    stored(tmp_path, recipe, texts_of(), SPLIT, replies)
    done = answered.learnt(recipe, texts_of(), {"train": SPLIT}, None)
    assert done.data["source"][:] == ["one", "one", "three", "three"]
    assert done.data["target"][:] == ["x", "y", "z", "Z"]
    assert done.data[CUT][:] == [False, True, False, False]
    assert done.of == 9
    answered.completed(recipe, texts_of(), {"train": SPLIT}, None, processor=None, folder=tmp_path)
    found = answered.Summary.of(tmp_path)
    assert found is not None
    assert found.left_out == {"repeated": 1, "empty": 1, "refused": 2, "rejected by the server": 1}
    assert (found.asked, found.learnt, found.cut) == (9, 4, 1)


@pytest.mark.parametrize(("price", "counts", "said"), [
    (None, (10, 5), r"30 tokens asked, 15 answered; what that costs is not known without a price"),
    (None, (None, None), r"0 tokens asked, 0 answered, and those of 3 answers not known; what that costs is not known"),
    ({"input": 1e5, "output": 1e5}, (10, 5), r"15 answered; 4.5 spent, by the prices in the recipe$"),
    ({"input": 1e5, "output": 1e5}, (None, None), r"; 0 spent, by the prices in the recipe, and what 3 answers cost is not"),
])
def test_what_answers_cost_is_said_or_that_nobody_knows_it(
    tmp_path: Path, price: Any, counts: tuple[int | None, int | None], said: str
) -> None:
    recipe = recipe_of(tmp_path, {"price": price})
    stored(tmp_path, recipe, texts_of(), SPLIT, [Reply(text, asked=counts[0], answered=counts[1]) for text in "xyz"])
    answered.completed(recipe, texts_of(), {"train": SPLIT}, None, processor=None, folder=tmp_path)
    found = answered.Summary.of(tmp_path)
    assert found is not None
    assert re.search(said, found.sentences()[0])


def keeps(source: str, text: str) -> bool:
    return source != "one" or text == "x"


def test_a_verifier_and_cut_leave_answers_out(tmp_path: Path) -> None:
    own = f"{__name__}:keeps"
    recipe = recipe_of(tmp_path, {"answers": 2}, completions={"by": "teacher", "cut": "drop", "keep": own})
    stored(tmp_path, recipe, texts_of(), SPLIT, [Reply("x"), Reply("y"), Reply("z", "length"), Reply("v"), *[Reply("")] * 2])
    done = answered.learnt(recipe, texts_of(), {"train": SPLIT}, None)
    assert done.data["target"][:] == ["x", "v"]
    nothing = recipe_of(tmp_path, {"answers": 2, "refusals": ["x", "y", "v", "z"]})
    with pytest.raises(DataError, match=r"none of the 6 answers can be learnt \(4 refused, 2 empty\)"):
        answered.learnt(nothing, texts_of(), {"train": SPLIT}, None)


def test_classes_are_learnt_beside_labels_and_each_answer_counts(tmp_path: Path) -> None:
    task = TextClassification.understand(TextClassificationData(train="x"), {"train": TEXTS})
    pool = Pool(task.unlabelled(Dataset.from_dict({"text": ["fine", "hm"]}), {}))
    recipe = recipe_of(tmp_path, {"answers": 2}, "text-classification", data={"unlabelled": {"examples": ["y"]}})
    stored(tmp_path, recipe, task, TEXTS, [Reply("Yes."), Reply("yes"), Reply("no"), Reply("what?")], pool)
    done = answered.learnt(recipe, task, {"train": TEXTS}, pool)
    assert MARK not in done.data.column_names
    assert list(zip(done.data["text"][:], done.data["label"][:])) == [
        ("good", "yes"), ("bad", "no"), ("so", "yes"), ("fine", "yes"), ("fine", "yes"), ("hm", "no")]
    asked = asking.questions(recipe, task, asking.to_ask(recipe, task, {"train": TEXTS}, pool))
    assert "Classes: no, yes\n\nText: fine\n\n" in asked[0].question.messages[0]["content"]


def test_its_answers_are_judged_by_labels(tmp_path: Path) -> None:
    task = TextClassification.understand(TextClassificationData(train="x"), {"train": TEXTS})
    said = task.judged(TEXTS, {0: "yes", 1: "yes", 2: None}, None, ())
    assert said == ("its answers have an accuracy of 0.333 (95 % interval 0.061 to 0.792) on 3 labelled examples, of which 1 "
                    "were not understood")


def test_a_class_is_not_read_from_thoughts_that_were_cut(tmp_path: Path) -> None:
    task = TextClassification.understand(TextClassificationData(train="x"), {"train": TEXTS})
    recipe = recipe_of(tmp_path, {"measured": 3}, "text-classification", data={"test": "y"})
    stored(tmp_path, recipe, task, TEXTS, [Reply("It could be yes, but", "length"), Reply("no", "length"), Reply("Yes.")])
    assert answered.learnt(recipe, task, {"train": TEXTS}, None).data["label"][:] == ["no", "yes"]
    answered.completed(recipe, task, {"train": TEXTS, "test": TEXTS}, None, processor=None, folder=tmp_path)
    found = answered.Summary.of(tmp_path)
    assert found is not None
    assert (found.left_out, found.cut) == ({"not understood": 1}, 1)
    assert "accuracy of 0.667" in found.quality


def test_a_refusal_that_names_the_class_is_no_right_answer(tmp_path: Path) -> None:
    task = TextClassification.understand(TextClassificationData(train="x"), {"train": TEXTS})
    recipe = recipe_of(tmp_path, {"measured": 3}, "text-classification", data={"test": "y"})
    refused = Reply("I'm sorry, but I cannot say yes here.")
    stored(tmp_path, recipe, task, TEXTS, [refused, Reply("no"), Reply("I must not say yes", "content_filter", "no")])
    answered.completed(recipe, task, {"train": TEXTS, "test": TEXTS}, None, processor=None, folder=tmp_path)
    found = answered.Summary.of(tmp_path)
    assert found is not None
    assert "accuracy of 0.333" in found.quality
    assert "2 were not understood" in found.quality


def test_reasons_are_learnt_beside_answers_and_asked_for_in_words_of_their_own(tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path, {"reasons": {"weight": 0.5, "asked": "Why? {source}"}})
    asked = asking.questions(recipe, texts_of(), SPLIT)[0].question.messages[0]["content"]
    assert asked == "one\n\nFirst give your reason. Then write Answer: and behind it the answer alone."
    replies = [Reply("So it is. Answer: x "), Reply("nothing of the kind"), Reply("Not Answer: a, but\nAnswer: z")]
    stored(tmp_path, recipe, texts_of(), SPLIT, replies)
    done = answered.learnt(recipe, texts_of(), {"train": SPLIT}, None)
    assert done.data["source"][:] == ["one", "three", "Why? one", "Why? three"]
    assert done.data["target"][:] == ["x", "z", "So it is.", "Not Answer: a, but"]
    assert weights_in(done.data).tolist() == [1, 1, 0.5, 0.5]
    assert done.of == 6
    answered.completed(recipe, texts_of(), {"train": SPLIT}, None, processor=None, folder=tmp_path)
    found = answered.Summary.of(tmp_path)
    assert found is not None
    assert found.left_out == {"without a reason and an answer": 1}
    assert "with their reasons, of which a token counts 0.5" in found.sentences()[0]


def test_who_writes_no_reasons_learns_none(tmp_path: Path) -> None:
    task = TextClassification.understand(TextClassificationData(train="x"), {"train": TEXTS})
    recipe = recipe_of(tmp_path, {"reasons": {}}, "text-classification")
    assert any("reasons: reasons are texts, and these models write none" in one for one in asking.problems(recipe, task))
    assert not any("reasons" in one for one in asking.problems(recipe_of(tmp_path, {"reasons": {}}), texts_of()))


def likely(**chances: float) -> list[tuple[str, dict[str, float]]]:
    return [(max(chances, key=lambda name: chances[name]), {name: math.log(one) for name, one in chances.items()})]


def test_how_sure_it_is_of_each_class_is_learnt_and_labels_are_certain(tmp_path: Path) -> None:
    task = TextClassification.understand(TextClassificationData(train="x"), {"train": TEXTS})
    recipe = recipe_of(tmp_path, {"logprobs": 5}, "text-classification",
                       data={"unlabelled": {"examples": "y"}})
    pool = Pool(task.unlabelled(Dataset.from_dict({"text": ["fine", "hm", "so so"]}), {}))
    stored(tmp_path, recipe, task, TEXTS, [Reply("yes", likely=likely(yes=0.75, no=0.25)), Reply("no"),
                                          Reply("Yes.", likely=likely(Yes=0.5, No=0.5))], pool)
    done = answered.learnt(recipe, task, {"train": TEXTS}, pool)
    assert done.said is not None
    assert np.exp(done.said) == pytest.approx(np.array([[0, 1], [1, 0], [0, 1], [0.25, 0.75], [1, 0], [0.5, 0.5]]), abs=1e-6)
    assert done.data["label"][:] == ["yes", "no", "yes", "yes", "no", "yes"]
    assert done.fingerprint != dataclasses.replace(done, said=None).fingerprint
    told = SaidTeacher(torch.from_numpy(done.said))(Batch(student={}, teacher={}, keys=torch.tensor([3, 0])))
    assert isinstance(told.logits, Dense)
    assert told.logits.logits.softmax(-1).numpy() == pytest.approx(np.array([[0.25, 0.75], [0, 1]]), abs=1e-6)
    answered.completed(recipe, task, {"train": TEXTS}, pool, processor=None, folder=tmp_path)
    found = answered.Summary.of(tmp_path)
    assert found is not None
    assert "3 learnt; of 2 of these how likely each class is, the others as certain." in found.sentences()[0]


def test_a_server_that_says_nothing_of_others_is_refused_where_that_is_asked(tmp_path: Path) -> None:
    task = TextClassification.understand(TextClassificationData(train="x"), {"train": TEXTS})
    recipe = recipe_of(tmp_path, {"logprobs": 5}, "text-classification")
    stored(tmp_path, recipe, task, TEXTS, [Reply("yes"), Reply("no"), Reply("yes", likely=[("ja", {"ja": 0.0})])])
    with pytest.raises(DataError, match=r"logprobs: http://x/v1 gave no log-probabilities that fit"):
        answered.learnt(recipe, task, {"train": TEXTS}, None)


def test_objectives_ask_for_what_such_a_teacher_says(tmp_path: Path) -> None:
    task = TextClassification.understand(TextClassificationData(train="x"), {"train": TEXTS})
    distill = {"objectives": [{"kind": "logits"}, {"kind": "hidden"}]}
    with_them = asking.problems(recipe_of(tmp_path, {"logprobs": 5}, "text-classification", distill=distill), task)
    assert [one.partition(",")[0] for one in with_them] == [
        "distill.objectives[1]: hidden asks the teacher for more than how likely each class is"]
    without = asking.problems(recipe_of(tmp_path, task="text-classification", distill=distill), task)
    assert len(without) == 2
    assert "logits with teacher.api.logprobs" in without[0]
    assert "name none" in "\n".join(asking.problems(recipe_of(tmp_path, {"logprobs": 5}), texts_of()))
    chosen = objectives_of(recipe_of(tmp_path, {"logprobs": 5}, "text-classification"), task)
    assert [one.kind for one in chosen] == ["labels", "logits"]


@pytest.mark.parametrize(("labels", "words"), [(["0", "1", "1"], "are numbers, which say nothing"),
                                               ([0.5, 0.25, 0.1], "or a number")])
def test_labels_that_no_answer_could_name_are_refused(tmp_path: Path, labels: list[Any], words: str) -> None:
    split = Dataset.from_dict({"text": TEXTS["text"][:], "label": labels})
    kind: Any = "single_label" if isinstance(labels[0], str) else None
    task = TextClassification.understand(TextClassificationData(train="x", kind=kind), {"train": split})
    assert words in "\n".join(asking.problems(recipe_of(tmp_path, task="text-classification"), task))


def test_what_lacks_is_named_with_its_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "find_spec", lambda name: None if name == "tenacity" else name)
    assert missing_packages(recipe_of(tmp_path)) == [
        'teacher.api: needs tenacity, which is not installed: pip install "stilla[api]"']
