"""What is read of pictures and texts, what becomes of it, and how it is judged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset

from stilla import data
from stilla.errors import CompatibilityError, DataError, RecipeError
from stilla.recipe.file import from_options
from stilla.signals import Side
from stilla.tasks.answers import Answers
from stilla.tasks.vision_text.captions import NO_CLASS, Said
from stilla.tasks.vision_text.exam import ImageTextExam, Known
from stilla.tasks.vision_text.image_text import ImageText
from stilla.tasks.vision_text.sections import ImageTextData
from stilla.views import Ranking
from tests.tasks.vision_text.setting import (
    NAMES,
    captioned,
    classed,
    clip_folder,
    folder_with_metadata,
    loaded,
    siglip_folder,
)


def understood(train: str, **more: Any) -> tuple[ImageText, dict[str, Dataset]]:
    section = ImageTextData(**{"train": train, "validation": train, **more})
    splits = data.load(section, seed=0)
    return ImageText.understand(section, splits), splits


# --- data ---


@pytest.mark.parametrize("lines", [False, True])
def test_a_folder_with_metadata_says_captions(tmp_path: Path, lines: bool) -> None:
    task, splits = understood(folder_with_metadata(tmp_path / "squares", lines=lines))
    assert task.said == Said(("text",))
    assert task.said.texts(splits["train"])[0][0].endswith("square, 0")


def test_lists_of_captions_are_read_without_doubles_and_empty_ones(tmp_path: Path) -> None:
    task, splits = understood(captioned(tmp_path / "x.parquet", each=3))
    assert task.resolved(task.section).text == ("caption",)  # type: ignore[arg-type]
    assert [len(one) for one in task.said.texts(splits["train"])[:3]] == [2, 3, 3]  # type: ignore[union-attr]
    again = Dataset.from_dict({"caption": [["a", " a ", "", None, "b"]]})
    assert Said(("caption",)).texts(again) == [("a", "b")]
    beside = Dataset.from_dict({"one": ["a", "b"], "two": [["b", "c"], None]})
    assert Said(("one", "two")).texts(beside) == [("a", "b", "c"), ("b",)]


def test_captions_are_made_of_classes_by_templates(tmp_path: Path) -> None:
    task, splits = understood(classed(tmp_path / "x.parquet"), template=["a {label} one", "{label}!"])
    assert task.class_names() == NAMES
    assert task.said.texts(splits["train"])[1] == ("a green one", "green!")  # type: ignore[union-attr]
    assert Said((), "l", ("a_b",), ("the {label}",)).prompts("a_b") == ["the a b"]


def test_captions_stand_before_texts_made_of_classes(tmp_path: Path) -> None:
    task, splits = understood(classed(tmp_path / "x.parquet", 4, caption=["one", "two", "three", "four"]))
    assert task.said.texts(splits["train"]) == [("one",), ("two",), ("three",), ("four",)]  # type: ignore[union-attr]
    assert [one.name for one in task.exam().metrics()][:2] == ["zero_shot_accuracy", "image_to_text_recall_at_1"]


@pytest.mark.parametrize("template", ["a photo", "{label} {label}", "{name} of {label}"])
def test_a_template_names_the_class_once(tmp_path: Path, template: str) -> None:
    with pytest.raises(RecipeError, match=r"expected a text with \{label\} where the class stands"):
        from_options({"task": "image-text", "teacher": "x", "student": {"layers": 1}, "output": "y",
                      "data": {"train": "z", "template": template}})


def test_what_cannot_be_read_is_said_in_words(tmp_path: Path) -> None:
    from datasets import Features, Image, Value

    from tests.tasks.vision_text.setting import picture

    def made(name: str, column: str, values: list[Any], kind: Any) -> str:
        path = tmp_path / f"{name}.parquet"
        pictures = [{"bytes": picture(number), "path": None} for number in range(len(values))]
        Dataset.from_dict({"image": pictures, column: values}, Features({"image": Image(), column: kind})).to_parquet(path)
        return str(path)

    with pytest.raises(DataError, match="which column says what is on the picture"):
        understood(made("a", "width", [1, 2], Value("int64")))
    with pytest.raises(DataError, match="are numbers without names"):
        understood(made("b", "label", [1, 2], Value("int64")))
    with pytest.raises(DataError, match="'caption' says nothing in 1 of 2 examples: row 1"):
        understood(made("c", "caption", ["x", " "], Value("string")))
    assert understood(made("d", "caption", ["x", " "], Value("string")), broken="skip")
    files = {split: made(split, column, ["x", "y"], Value("string"))
             for split, column in (("train", "caption"), ("test", "label"))}
    splits = {name: data.sources.read(path)["train"] for name, path in files.items()}
    section = ImageTextData.model_validate({"train": "x"})
    assert ImageText.understand(section, splits)  # captions to learn from, classes to be measured by
    with pytest.raises(DataError, match="holds 1 classes"):
        understood(made("e", "label", ["x", "x"], Value("string")))
    with pytest.raises(DataError, match="which is no column"):
        understood(made("f", "caption", ["x", "y"], Value("string")), text="captoin")


# --- models ---


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return loaded(clip_folder(tmp_path_factory.mktemp("clip")))


@pytest.fixture(scope="module")
def siglip(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return loaded(siglip_folder(tmp_path_factory.mktemp("siglip")))


def test_vectors_are_those_of_transformers(clip: Any) -> None:
    from transformers import CLIPModel

    plain = CLIPModel.from_pretrained(clip.source)
    pixels, ids = torch.rand(2, 3, 16, 16), torch.tensor([[56, 3, 57], [56, 9, 57]])
    with torch.no_grad():
        ours, theirs = clip.model(pixel_values=pixels, input_ids=ids), plain(pixel_values=pixels, input_ids=ids)
    torch.testing.assert_close(ours.image_embeds, theirs.image_embeds)
    torch.testing.assert_close(ours.text_embeds, theirs.text_embeds)
    torch.testing.assert_close(ours.scale * ours.image_embeds @ ours.text_embeds.T, theirs.logits_per_image)
    assert clip.model.width == 24


@pytest.mark.slow
@pytest.mark.parametrize("name", ["clip", "siglip"])
def test_a_text_has_the_same_vector_alone_and_beside_a_longer_one(
    name: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    model = request.getfixturevalue(name)
    assert model.processor.fixed == (name == "siglip")
    task, splits = understood(captioned(tmp_path / "x.parquet", 6))
    prepared = task.prepare(splits["train"], model.processor, None, training=True)
    with torch.no_grad():
        vectors = [model.model(**prepared.collate(one).student).text_embeds for one in ([0], [0, 1, 2])]
    first = prepared.collate([0, 1, 2])["texts"][0]
    torch.testing.assert_close(vectors[0][0], vectors[1][first], atol=1e-5, rtol=0)


def test_a_siglip_that_nobody_has_trained_begins_as_siglip_did(tmp_path: Path) -> None:
    model = loaded(siglip_folder(tmp_path / "x", trained=False)).model
    assert model.logit_scale.exp().item() == pytest.approx(10)
    assert model.logit_bias.item() == -10


def test_what_has_no_two_towers_is_refused(tmp_path: Path) -> None:
    from tests.tasks.tiny import vit_folder

    with pytest.raises(CompatibilityError, match="does not compare the vector of a picture with that of a text"):
        loaded(vit_folder(tmp_path / "vit"))


# --- batches ---


def test_equal_texts_of_a_batch_are_read_once_and_belong_to_all_their_pictures(clip: Any, tmp_path: Path) -> None:
    task, splits = understood(classed(tmp_path / "x.parquet", 8))
    prepared = task.prepare(splits["train"], clip.processor, clip.processor, training=True)
    batch = prepared.collate([0, 1, 4, 2])  # red, green, red, blue
    assert batch.student is batch.teacher
    assert (len(batch.student["pixel_values"]), len(batch.student["input_ids"])) == (4, 3)
    assert task.counts(batch)["examples"] == 8
    said = task.signals(clip.model(**batch.student), batch, Side.STUDENT)
    assert said.pairs is not None
    assert said.pairs.first.tolist() == said.pairs.belongs_to.tolist() == [0, 1, 4, 2]
    assert said.pairs.second[0] == said.pairs.second[2]
    torch.testing.assert_close(said.embeddings["text"][0], said.embeddings["text"][2])


def test_other_pictures_and_other_tokens_of_the_two_models_are_the_same_examples(
    clip: Any, siglip: Any, tmp_path: Path
) -> None:
    task, splits = understood(captioned(tmp_path / "x.parquet", 6))
    prepared = task.prepare(splits["train"], clip.processor, siglip.processor, training=True)
    batch = prepared.collate([3, 0])
    assert set(batch.teacher) == {"pixel_values", "input_ids"}
    ours, theirs = (task.signals(one.model(**inputs), batch, side) for one, inputs, side in (
        (clip, batch.student, Side.STUDENT), (siglip, batch.teacher, Side.TEACHER)))
    assert ours.embeddings.keys() == theirs.embeddings.keys()
    alone = siglip.processor.tokenizer(task.said.texts(splits["train"])[3][0])["input_ids"]  # type: ignore[union-attr]
    assert batch.teacher["input_ids"][batch["texts"][0]][: len(alone)].tolist() == alone


def test_what_is_stored_is_found_again_in_other_batches(clip: Any, tmp_path: Path) -> None:
    task, splits = understood(captioned(tmp_path / "x.parquet", 6, each=2))
    task = task.adapted_to(clip)
    prepared = task.prepare(splits["train"], clip.processor, clip.processor, training=True)
    known: dict[bytes, torch.Tensor] = {}
    with torch.no_grad():
        for some in ([0, 1, 2], [3, 4, 5]):
            batch = prepared.collate(some)
            stored = task.remembered(task.signals(clip.model(**batch.teacher), batch, Side.TEACHER), batch)
            rows = task.segments(batch)
            known |= {one.content: stored.logits.logits[one.rows] for one in rows}  # type: ignore[union-attr]
        batch = prepared.collate([5, 0, 3])
        from stilla.signals import Dense, Signals
        cached = Signals(logits=Dense(torch.cat([known[one.content] for one in task.segments(batch)])))
        live = task.signals(clip.model(**batch.teacher), batch, Side.TEACHER)
        _, told = task.align(live, cached, batch)
    for name in ("image", "text"):
        torch.testing.assert_close(told.embeddings[name], live.embeddings[name], atol=1e-5, rtol=0)
    assert float(told.pairs.scale) == pytest.approx(float(live.pairs.scale))  # type: ignore[union-attr]


# --- answers ---


def answered(
    vectors: list[np.ndarray[Any, Any]], known: list[Known], said: Said
) -> tuple[ImageTextExam, Answers, dict[str, float]]:
    exam = ImageTextExam(said, "image")
    answers = exam.finished(Answers(np.arange(len(known)), vectors, known))
    return exam, answers, {one.name: one.compute(answers.given, answers.references) for one in exam.metrics()
                           if exam.concerns(one, answers)}


def test_texts_that_are_their_pictures_are_all_found_first() -> None:
    eye = np.eye(4, dtype=np.float32)
    known = [Known(key, (key,), (str(key),), pictures=(frozenset({key}),)) for key in range(4)]
    _, _, metrics = answered([np.stack([one, one]) for one in eye], known, Said(("caption",)))
    assert set(metrics.values()) == {1.0}


def test_any_of_five_captions_counts_once() -> None:
    eye = np.eye(3, dtype=np.float32)
    bad = np.full((4, 3), -1, np.float32)
    known = [Known(key, tuple(range(5 * key, 5 * key + 5)), ("",) * 5, pictures=(frozenset({key}),) * 5) for key in range(3)]
    _, _, metrics = answered([np.concatenate([one[None], bad, one[None]]) for one in eye], known, Said(("caption",)))
    assert metrics["image_to_text_recall_at_1"] == 1
    assert metrics["text_to_image_recall_at_1"] == pytest.approx(3 / 15)  # those that point away are as near to none


def test_a_model_whose_vectors_are_all_the_same_finds_nothing() -> None:
    same = np.ones((2, 3), np.float32)
    known = [Known(key, (key,), (str(key),), key % 2, (frozenset({key}),)) for key in range(20)]
    prompts = [Known(None, (), prompts=one) for one in range(2)]
    said = Said(("caption",), "label", ("a", "b"), ("{label}",))
    _, _, metrics = answered([*[same] * 20, same[:1], same[:1]], [*known, *prompts], said)
    assert set(metrics.values()) == {0.0}
    assert len(metrics) == 7


def test_a_class_is_the_mean_of_its_texts_vectors() -> None:
    prompts = [Known(None, (), prompts=0), Known(None, (), prompts=1)]
    known = [Known(0, (), label=0), Known(1, (), label=1), Known(2, (), label=NO_CLASS)]
    vectors = [np.array([[1, 0]], np.float32), np.array([[0, 1]], np.float32), np.array([[0, 1]], np.float32),
               np.array([[0.6, 0.8], [1, 0]], np.float32), np.array([[0, 1], [0, 1]], np.float32)]
    said = Said((), "label", ("a", "b"), ("{label}", "the {label}"))
    exam, answers, metrics = answered(vectors, [*known, *prompts], said)
    assert metrics == {"zero_shot_accuracy": 1.0}
    decisions = exam.decisions(answers)
    assert decisions is not None
    assert decisions.decided.tolist() == [0, 1, 1]
    assert exam.named(decisions.decided[0]) == "a"
    classes = exam.by_class(answers)
    assert classes is not None
    assert classes.values.tolist() == [1.0, 1.0]
    assert exam.constant(answers)[0]["label"] == 0  # type: ignore[index]


def test_vectors_that_are_no_numbers_are_no_answers() -> None:
    from stilla.errors import StillaError

    known = [Known(0, (0,), ("x",), pictures=(frozenset({0}),))]
    _, answers, _ = answered([np.full((2, 3), np.nan, np.float32)], known, Said(("caption",)))
    with pytest.raises(StillaError, match="NaN or infinite"):
        answers.check_finite("student")


def test_a_picture_is_shown_with_what_is_found_for_it(clip: Any, tmp_path: Path) -> None:
    from stilla.evaluate import Asked, examine

    for file, words in ((classed(tmp_path / "x.parquet", 4), set(NAMES)), (captioned(tmp_path / "y.parquet", 4), None)):
        task, splits = understood(file)
        task = task.adapted_to(clip)
        prepared = task.prepare(splits["validation"], clip.processor, None, training=False)
        exam = task.exam()
        said = examine(exam, {"teacher": Asked(clip.model)}, prepared)
        view = exam.view(splits["validation"], said, 2, 0)
        assert isinstance(view, Ranking)
        assert view.picture.startswith("data:image/png;base64,")
        texts = [one.text for one in view.lists["teacher"]]
        assert set(texts) == (words or {one[0] for one in task.said.texts(splits["validation"])})  # type: ignore[union-attr]
        assert sum(one.right for one in view.lists["teacher"]) == 1
