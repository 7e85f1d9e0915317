"""Several tasks for one student: data in one table, one encoder, a head, an exam and a teacher for each."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from transformers import (
    DebertaV2Config,
    DebertaV2ForSequenceClassification,
    T5Config,
    T5ForSequenceClassification,
    T5ForTokenClassification,
    TrainingArguments,
    XLNetConfig,
    XLNetForSequenceClassification,
    set_seed,
)

from stilla import DistillationTrainer, data, tasks
from stilla.errors import CompatibilityError, DataError
from stilla.evaluate import Asked, examine
from stilla.models.fingerprint import of_model
from stilla.objectives import DIST, Hidden, Labels, Logits, Term, term
from stilla.recipe import ModelSource, Recipe, StudentSpec
from stilla.signals import Side
from stilla.stages import caching
from stilla.stages.starting import start_student
from stilla.tasks.base import Loaded
from stilla.tasks.several.batching import parts_of
from stilla.tasks.several.model import SeveralModel, Teachers
from stilla.tasks.several.several import Several
from stilla.tasks.text.sections import Contextual
from tests import tiny
from tests.equivalence.setting import distance, losses, weights
from tests.tasks.several import setting


class Made:
    """A task of two over tiny data, with two teachers."""

    def __init__(self, folder: Path, **data_section: Any) -> None:
        own = {"words": setting.tagger(folder / "tagger")}
        plain = setting.recipe(folder, own=own)
        plain["data"] |= data_section
        self.recipe = Recipe.model_validate(plain)
        self.splits = data.load(self.recipe.data, seed=0)
        task = tasks.find("several").understand(self.recipe.data, self.splits)
        assert isinstance(task, Several)
        self.bound = task.settled(self.recipe.teacher, self.recipe.student)
        self.teacher = self.bound.load(self.recipe.teacher, labelled=True)
        self.task = self.bound.adapted_to(self.teacher)

    def student(self) -> Loaded:
        torch.manual_seed(0)
        return start_student(self.recipe.student, self.task, self.teacher)[1]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return Made(tmp_path_factory.mktemp("several"))


def batch_of(made: Made, examples: list[int], split: str = "validation") -> Any:
    prepared = made.task.prepare(made.splits[split], made.teacher.processor, made.teacher.processor, training=False)
    return prepared.collate([prepared.examples[one] for one in examples])


@pytest.mark.slow
def test_examples_stand_in_one_table_and_each_task_gets_its_own_back(made: Made) -> None:
    assert {split: len(one) for split, one in made.splits.items()} == {"train": 168, "validation": 64, "test": 84}
    words, rows = data.part_of(made.splits["train"], "words")
    assert words.column_names == ["tokens", "tags"]
    assert rows.tolist() == list(range(120, 168))
    assert words[0]["tags"][0] in setting.TAGS


def test_where_data_and_teachers_lie_is_nothing_to_how_they_are_read(made: Made) -> None:
    read = caching.reading(made.recipe, made.task)
    assert set(read["parts"]) == {"topics", "words"}
    assert read["parts"]["words"]["data"]["tags"] == "tags"
    assert read["temperature"] == 1.0
    assert "teacher" not in read["parts"]["words"]
    assert str(Path(made.recipe.output).parent) not in str(read)


def test_every_task_is_bound_by_its_own_data(made: Made) -> None:
    assert {name: one.kind for name, one in made.task.parts.items()} == {
        "topics": "text-classification", "words": "token-classification"}
    assert made.task.parts["words"].class_names() == setting.TAGS


@pytest.mark.slow
def test_the_student_is_one_encoder_of_fewer_layers_with_its_teachers_heads(made: Made) -> None:
    student = made.student().model
    assert isinstance(student, SeveralModel)
    assert isinstance(made.teacher.model, Teachers)
    assert student.config.encoder.num_hidden_layers == 2
    assert student.head("words").bert is student.head("topics").bert is student.encoder
    names = {name.split(".")[0] for name, _ in student.named_parameters()}
    assert names == {"encoder", "heads"}
    for name in ("topics", "words"):
        assert torch.equal(student.head(name).classifier.weight, made.teacher.model.head(name).classifier.weight)
    assert torch.equal(student.get_input_embeddings().weight, made.teacher.model.head("topics").get_input_embeddings().weight)


def test_every_head_alone_answers_as_the_whole(made: Made) -> None:
    student = made.student().model.eval()
    batch = batch_of(made, [0, 41, 3, 50])
    with torch.no_grad():
        said = student(**batch.student)["parts"]
        for name, own in parts_of(batch).items():
            assert torch.equal(student.alone(name)(**own.student)["logits"], said[name]["logits"])


@pytest.mark.parametrize(("kind", "config"), [
    (DebertaV2ForSequenceClassification, DebertaV2Config(
        vocab_size=20, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8)),
    (XLNetForSequenceClassification, XLNetConfig(vocab_size=20, d_model=8, n_layer=1, n_head=2, d_inner=8))])
def test_encoders_with_an_attention_of_their_own_come_back_from_their_folder(tmp_path: Path, kind: Any, config: Any) -> None:
    torch.manual_seed(0)
    one = kind(config).eval()
    whole = SeveralModel.sharing({"a": one, "b": one}, one.base_model)
    whole.save_pretrained(tmp_path)
    inputs = {f"{part}/input_ids": torch.arange(4, 10)[None] for part in "ab"}
    with torch.no_grad():
        expected, found = whole(**inputs), SeveralModel.from_pretrained(tmp_path).eval()(**inputs)
    torch.testing.assert_close(found["logits"], expected["logits"])


def test_a_gradient_of_the_encoder_is_the_sum_of_the_tasks(made: Made) -> None:
    student, batch = made.student().model, batch_of(made, [0, 41, 3, 50])

    def gradient(names: tuple[str, ...]) -> torch.Tensor:
        student.zero_grad()
        said = student(**batch.student)["parts"]
        sum(said[name]["logits"].square().sum() for name in names).backward()
        return student.encoder.encoder.layer[0].output.dense.weight.grad.clone()

    both = gradient(("topics", "words"))
    assert torch.allclose(both, gradient(("topics",)) + gradient(("words",)), atol=1e-5)


def test_counts_are_of_every_task_and_of_all(made: Made) -> None:
    counts = made.task.counts(batch_of(made, [0, 1, 41]))
    assert counts["topics/rows"] == counts["topics/labelled"] == 2
    assert counts["words/examples"] == 1
    assert counts["rows"] == 2 + counts["words/words"]
    assert set(counts) == set(made.task.counted)
    assert made.task.counts(batch_of(made, [0]))["words/words"] == 0


def test_what_a_teacher_says_comes_apart_and_together_by_task(made: Made) -> None:
    """Each task's examples by themselves are answered as among the others, and what is stored of them is what is read."""
    batch, task = batch_of(made, [41, 0, 50, 3]), made.task
    read = {}
    with torch.no_grad():
        theirs = task.signals(made.teacher.model(**batch.teacher), batch, Side.TEACHER)
        ours = task.signals(made.student().model(**batch.student), batch, Side.STUDENT)
        for name, own in task.parts_of(batch).items():
            alone = task.batch_of({name: own})
            assert {one.partition("/")[0] for one in alone.teacher} == {name}
            said = task.signals(made.teacher.model(**alone.teacher), alone, Side.TEACHER).parts[name]
            read[name] = type(said)(logits=said.logits)  # as from a store, which knows no labels
    assert torch.equal(task.signals_of(read).logits.logits, theirs.logits.logits)
    _, live = task.align(ours, theirs, batch)
    _, stored = task.align(ours, task.signals_of(read), batch)
    for name in task.parts:
        assert torch.equal(live.parts[name].logits.logits, stored.parts[name].logits.logits)
    rows = [segment.rows for segment in made.task.segments(batch)]
    assert [one.start for one in rows[1:]] == [one.stop for one in rows[:-1]]
    assert rows[-1].stop == len(theirs.logits)


def test_the_same_text_is_another_piece_for_another_task(made: Made) -> None:
    contents = [one.content for one in made.task.segments(batch_of(made, [0, 41]))]
    assert contents[0].startswith(b"topics\0")
    assert contents[1].startswith(b"words\0")


def test_padding_of_one_task_is_not_the_others(made: Made) -> None:
    batch = batch_of(made, [0, 41, 50])
    alone = batch_of(made, [0])
    assert batch.student["topics/input_ids"].shape == alone.student["topics/input_ids"].shape


def test_answers_are_judged_by_every_tasks_own_exam(made: Made) -> None:
    """Whatever the batches: each number is what the task by itself would measure."""
    student = made.student()
    exam = made.task.exams(made.recipe.evaluate)[0]
    prepared = made.task.prepare(made.splits["test"], student.processor, made.teacher.processor, training=False)
    said = examine(made.task.exam(), {"teacher": Asked(made.teacher.model, Side.TEACHER), "student": Asked(student.model)},
                   prepared, batch_size=7)
    values = {name: {metric.name: metric.compute(one.given, one.references) for metric in exam.metrics()}
              for name, one in said.items()}
    retained = []
    for name, task in made.task.parts.items():
        own, _ = data.part_of(made.splits["test"], name)
        alone = task.prepare(own, student.processor[name], None, training=False)
        by_itself = {role: examine(task.exam(), {"student": Asked(model)}, alone)["student"]
                     for role, model in (("student", student.model.alone(name)), ("teacher", made.teacher.model.head(name)))}
        for metric in task.exam().metrics():
            for role, one in by_itself.items():
                assert values[role][f"{name}/{metric.name}"] == pytest.approx(
                    metric.compute(one.given, one.references), abs=1e-9, nan_ok=True)
        first = task.exam().metrics()[0]
        kept = [first.compute(one.given, one.references) for one in by_itself.values()]
        retained.append(kept[0] / kept[1])
    assert values["student"]["mean_retention"] == pytest.approx(float(np.mean(retained)))
    assert values["teacher"]["mean_retention"] == pytest.approx(1.0)


def test_terms_are_of_every_task_or_of_the_one_they_name(made: Made) -> None:
    terms = made.task.terms([Term(Labels(), weight=0.3), Term(Logits(), name="words/logits", part="words"), Term(DIST())])
    assert [(one.name, one.objective.count) for one in terms] == [
        ("topics/labels", "topics/labelled"), ("words/labels", "words/labelled"), ("words/logits", "words/rows"),
        ("topics/dist", "topics/rows"), ("words/dist", "words/rows")]
    assert made.task.terms(terms) == terms


def test_every_task_learns_by_default_as_it_would_alone(made: Made) -> None:
    assert [(one.part, one.kind, one.weight(0)) for one in made.task.learns_by()] == [
        ("topics", "labels", 0.3), ("topics", "logits", 0.7), ("words", "labels", 0.3), ("words", "logits", 0.7)]


@pytest.mark.parametrize(("term", "words"), [
    (Term(Labels(), part="tagz"), "part: got 'tagz'; expected"),
    (Term(Hidden()), "compares hidden states, vectors or weights"),
])
def test_terms_that_cannot_be_are_refused(made: Made, term: Term, words: str) -> None:
    with pytest.raises(CompatibilityError, match=words):
        made.task.terms([term])


def test_a_task_that_no_objective_is_of_is_named(made: Made) -> None:
    assert "no objective is of topics" in made.task.idle([Term(Labels(), part="words")])[0]
    assert not made.task.idle([Term(Labels())])


def test_a_single_task_has_no_parts(made: Made) -> None:
    with pytest.raises(CompatibilityError, match="one task, which has no parts"):
        made.task.parts["words"].terms([Term(Labels(), part="words")])


def test_it_is_saved_as_a_whole_and_a_plain_folder_for_every_head(made: Made, tmp_path: Path) -> None:
    student = made.student()
    student.model.save_pretrained(tmp_path)
    student.processor.save_pretrained(tmp_path)
    again = made.task.load(ModelSource(model=str(tmp_path)), labelled=True)
    assert of_model(again.model) == of_model(student.model)
    assert made.task.adapted_to(again).parts["words"].class_names() == setting.TAGS
    with pytest.raises(CompatibilityError, match="none for others"):
        Several({"others": made.task.parts["words"]}, made.task.section).load(ModelSource(model=str(tmp_path)), labelled=True)


@pytest.mark.slow
def test_each_head_is_saved_with_the_length_at_which_its_texts_were_cut(tmp_path: Path) -> None:
    plain = setting.parts(tmp_path)
    plain["topics"]["data"]["max_length"] = 9
    plain["words"]["teacher"] = setting.tagger(tmp_path / "own")
    made = Made(tmp_path, parts=plain)
    student = made.student()
    kept = made.task.as_measured(student.processor, made.teacher.processor)
    # a pipeline leaves words behind that length without a tag, which are read here in windows
    assert {name: one.model_max_length for name, one in kept.items()} == {"topics": 9, "words": 64}


def test_a_given_student_has_one_tokenizer_and_new_heads(made: Made) -> None:
    torch.manual_seed(0)
    loaded = made.task.load(ModelSource(model=setting.topics(Path(made.recipe.output) / "given", layers=1)), labelled=False)
    assert isinstance(loaded.model, SeveralModel)
    assert loaded.processor["words"] is loaded.processor["topics"]
    assert loaded.model.head("words").config.id2label == dict(enumerate(setting.TAGS))


def _changed(**changes: Any) -> Callable[[dict[str, Any]], None]:
    return lambda plain: plain.update(changes)


@pytest.mark.parametrize(("change", "words"), [
    (lambda plain: plain["teacher"].update(train={"epochs": 1}), "names teachers of words: which is meant"),
    (_changed(teacher={"model": "mine:Model"}), "is code"),
])
def test_teachers_that_are_named_twice_or_are_code_are_refused(
    made: Made, tmp_path: Path, change: Callable[[dict[str, Any]], None], words: str
) -> None:
    plain = setting.recipe(tmp_path, own={"words": "./tagger"})
    change(plain)
    recipe = Recipe.model_validate(plain)
    with pytest.raises(CompatibilityError, match=words):
        made.bound.settled(recipe.teacher, recipe.student)


def test_heads_that_are_not_around_one_encoder_are_refused() -> None:
    """T5 classifies texts with its decoder, and words without."""
    config = T5Config(vocab_size=40, d_model=16, d_kv=8, d_ff=24, num_layers=2, num_heads=2, decoder_start_token_id=0)
    models = {"topics": T5ForSequenceClassification(config), "words": T5ForTokenClassification(config)}
    with pytest.raises(CompatibilityError, match="topics as T5ForSequenceClassification around T5Model and words as T5"):
        SeveralModel.sharing(models, models["topics"].base_model)


def test_words_that_a_masked_model_proposes_are_for_a_task_by_itself(made: Made) -> None:
    augment = Contextual(kind="contextual", model="m")
    topics = made.bound.parts["topics"]
    changed = replace(topics, section=topics.section.model_copy(update={"augment": augment}))
    task = replace(made.bound, parts={**made.bound.parts, "topics": changed})
    with pytest.raises(CompatibilityError, match=r"data\.parts\.topics\.data\.augment: contextual is for a task by itself"):
        task.settled(made.recipe.teacher, made.recipe.student)


@pytest.mark.slow
def test_a_teacher_that_cannot_answer_is_named_by_its_task(made: Made, tmp_path: Path) -> None:
    """Its head is for other labels; it is not there at all."""
    task = Several(made.bound.parts, _all_of_the_start(made))
    with pytest.raises(CompatibilityError, match=r"words: .*FILLER"):
        task.adapted_to(task.load(made.recipe.teacher, labelled=True))
    with pytest.raises(CompatibilityError, match=r"topics: .*nowhere.*\n.*words: .*nowhere"):
        task.load(ModelSource(model=str(tmp_path / "nowhere")), labelled=True)


def _all_of_the_start(made: Made) -> Any:
    section = made.recipe.data
    parts = {name: part.model_copy(update={"teacher": None}) for name, part in section.parts.items()}
    return section.model_copy(update={"parts": parts})


def test_problems_of_the_data_are_said_with_their_task(tmp_path: Path) -> None:
    plain = setting.recipe(tmp_path)
    plain["data"]["parts"]["words"]["data"] = {"train": str(tmp_path / "nowhere.jsonl")}
    plain["data"]["parts"]["topics"]["data"]["label"] = "nothing"
    with pytest.raises(DataError, match=r"data\.parts\.words\.data\.train.*nowhere"):
        data.load(Recipe.model_validate(plain).data, seed=0)
    plain["data"]["parts"]["words"]["data"] = setting.tagged(tmp_path / "again")
    recipe = Recipe.model_validate(plain)
    with pytest.raises(DataError, match=r"data\.parts\.topics\.data.*nothing"):
        tasks.find("several").understand(recipe.data, data.load(recipe.data, seed=0))


def test_test_data_of_some_tasks_alone_are_refused(tmp_path: Path) -> None:
    plain = setting.recipe(tmp_path)
    del plain["data"]["parts"]["words"]["data"]["test"]
    with pytest.raises(DataError, match="test data of topics, and none of words"):
        data.load(Recipe.model_validate(plain).data, seed=0)


def test_a_table_of_one_task_is_not_taken_for_several(made: Made) -> None:
    with pytest.raises(DataError, match="nothing says which of several tasks"):
        tasks.find("several").understand(made.recipe.data, {"new": Dataset.from_dict({"text": ["a"], "label": ["food"]})})


@pytest.mark.slow
def test_the_temperature_says_how_often_a_task_comes(tmp_path: Path) -> None:
    made = Made(tmp_path, temperature=100.0)
    prepared = made.task.prepare(made.splits["train"], made.teacher.processor, made.teacher.processor, training=True)
    assert prepared.on_epoch is not None
    taken = [prepared.examples[one][0] for one in range(len(prepared))]
    assert taken.count("words") == pytest.approx(84, abs=1)
    assert len(prepared) == 168
    first = prepared.collate([prepared.examples[one] for one in range(100, 110)])
    prepared.on_epoch(1)
    assert not torch.equal(first["keys"], prepared.collate([prepared.examples[one] for one in range(100, 110)])["keys"])


def _of_every_kind(folder: Path) -> tuple[Several, dict[str, Dataset], Loaded]:
    """Classes, several labels, a number, and words with tags; and a model of all, untrained."""
    draw = np.random.default_rng(0)
    files = tiny.texts(folder / "topics", train=20, validation=12, test=12)
    rows = {split: [json.loads(line) for line in Path(file).read_text(encoding="utf-8").splitlines()]
            for split, file in files.items()}
    places: dict[str, dict[str, Any]] = {"several": {}, "stars": {}}
    for split, texts in rows.items():
        for name, value in (("several", lambda row: [row["topic"], "new"][: int(draw.integers(1, 3))]),
                            ("stars", lambda row: round(float(draw.uniform(0, 5)), 3))):
            file = folder / f"{name}-{split}.jsonl"
            file.write_text("".join(json.dumps({"text": row["text"], "label": value(row)}) + "\n" for row in texts),
                            encoding="utf-8")
            places[name][split] = str(file)
    made = setting.parts(folder / "data", train=(20, 12))
    made["topics"]["data"] = files
    made["several"] = {"task": "text-classification", "data": {**places["several"], "thresholds": "tuned"}}
    made["stars"] = {"task": "text-classification", "data": {**places["stars"], "kind": "regression"}}
    for part in made.values():
        if part["task"] == "text-classification":
            part["data"] = {**part["data"], "augment": "none"}
    recipe = Recipe.model_validate({
        "task": "several", "data": {"parts": made, "temperature": 2.0}, "output": "run", "student": 2,
        "teacher": setting.topics(folder / "start", width=16)})
    splits = data.load(recipe.data, seed=0)
    task = tasks.find("several").understand(recipe.data, splits).settled(recipe.teacher, recipe.student)
    assert isinstance(task, Several)
    torch.manual_seed(0)
    loaded = task.load(recipe.teacher, labelled=False)
    return task.adapted_to(loaded), splits, loaded


@pytest.mark.slow
def test_classes_several_labels_numbers_and_words_are_learnt_together_however_a_step_is_cut(tmp_path: Path) -> None:
    task, splits, teacher = _of_every_kind(tmp_path)
    found = []
    for batch, accumulate in ((16, 1), (4, 4)):
        set_seed(1)
        student, _ = start_student(StudentSpec(layers=1), task, teacher)
        prepared = task.prepare(splits["train"], teacher.processor, teacher.processor, training=True)
        trainer = DistillationTrainer(
            student, teacher.model, terms=[term(spec) for spec in task.learns_by()], task=task, train_dataset=prepared,
            args=TrainingArguments(output_dir=str(tmp_path / "out"), per_device_train_batch_size=batch, max_steps=3,
                                   gradient_accumulation_steps=accumulate, learning_rate=0.05, report_to=[], use_cpu=True,
                                   save_strategy="no", logging_steps=1, disable_tqdm=True, optim="sgd"))
        trainer.train()
        found.append((weights(trainer), losses(trainer)))
    assert distance(found[0][0], found[1][0]) < 3e-6
    assert {name for name in found[0][1][0] if name.startswith("terms/")} == {
        f"terms/{name}/{kind}" for name in task.parts for kind in ("labels", "logits")}
    for one, other in zip(found[0][1], found[1][1], strict=True):
        assert one == pytest.approx(other, abs=1e-5)


@pytest.mark.slow
def test_what_is_chosen_on_validation_data_is_saved_with_its_head(tmp_path: Path) -> None:
    task, splits, loaded = _of_every_kind(tmp_path)
    assert task.settles
    prepared = task.prepare(splits["validation"], loaded.processor, None, training=False)
    said = examine(task.exam(), {"student": Asked(loaded.model)}, prepared)["student"]
    task.settle(loaded.model, said)
    loaded.model.save_pretrained(tmp_path / "saved")
    loaded.processor.save_pretrained(tmp_path / "saved")
    config = json.loads((tmp_path / "saved" / "several" / "config.json").read_text(encoding="utf-8"))
    assert set(config["thresholds"]) == {*tiny.TOPICS, "new"}
    again = task.load(ModelSource(model=str(tmp_path / "saved")), labelled=True)
    assert isinstance(again.model, SeveralModel)
    assert again.model.head("several").config.thresholds == config["thresholds"]
    exam = task.exam()
    settled = exam.settled(said, said)
    (own,) = (metric for metric in exam.metrics() if metric.name == "several/micro_f1")
    alone = exam.exams["several"].settled(exam.of_part("several", said), exam.of_part("several", said))
    assert own.compute(settled.given, settled.references) == pytest.approx(
        exam.exams["several"].metrics()[0].compute(alone.given, alone.references))
