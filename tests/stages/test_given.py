"""What a call in Python means as a recipe, and what is written down of what it gives."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import PIL.Image
import pytest
import torch
from datasets import Audio, ClassLabel, Dataset, DatasetDict, Features, Image, Value, load_from_disk
from torch import nn
from transformers import (
    AutoModel,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertForSequenceClassification,
    ViTConfig,
    ViTForImageClassification,
    ViTImageProcessorPil,
)

from stilla import data
from stilla.errors import DataError, FolderError, RecipeError
from stilla.recipe import Recipe, Stage, Teacher
from stilla.recipe.file import from_options, read
from stilla.recipe.yaml import flow
from stilla.stages.folder import RunFolder
from stilla.stages.given import Call
from stilla.stages.stored import is_saved_in
from tests import tiny

TEXTS = Dataset.from_dict({"text": ["a soup", "a song", "a ball"], "label": ["food", "music", "sport"]})
TASK = {"task": "text-classification", "teacher": "./bert", "student": 2, "data": "reviews.csv"}


def call(output: Path | None = None, *overrides: str, processing_class: Any = None, **options: Any) -> Call:
    said = {**TASK, **options} if output is None else {**TASK, "output": str(output), **options}
    return Call.of(None, overrides, said, processing_class)


def written(output: Path, **options: Any) -> Recipe:
    with call(output, **options).written_down() as recipe:
        named(output, recipe)
        return recipe


def named(output: Path, recipe: Recipe) -> None:
    """As a run writes its recipe, without which nothing is kept."""
    (output / "recipe.yaml").write_text(json.dumps(recipe.model_dump(mode="json")))


def loaded(folder: Path) -> BertForSequenceClassification:
    return AutoModelForSequenceClassification.from_pretrained(tiny.bert(folder))


@pytest.mark.parametrize("source", [TASK, from_options(TASK)])
def test_a_dict_and_a_recipe_are_recipes_as_keywords_are(source: Any) -> None:
    assert Call.of(source, [], {}).recipe == from_options(TASK)
    assert Call.of(source, ["seed=1"], {"student": 3}).recipe == from_options({**TASK, "student": 3, "seed": 1,
                                                                               "output": "runs/reviews"})


def test_keywords_take_the_place_of_a_files_sections(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(flow(TASK))
    assert Call.of(file, [], {}).recipe == read(file)
    found = Call.of(str(file), ["data.limit=2"], {"data": TEXTS, "seed": 3})
    assert (found.recipe.seed, found.recipe.data.limit, found.recipe.output) == (3, 2, "runs/mine")
    assert set(found.given) == {("data", "train")}
    with pytest.raises(RecipeError, match="Models and data are keywords"):
        Call.of(TEXTS, [], {})  # type: ignore[arg-type]


def test_values_of_python_are_what_they_are_in_a_file(tmp_path: Path) -> None:
    found = call(student={"layers": {"keep": (0, np.int64(3))}}, data=tmp_path / "a.csv", seed=np.int64(7),
                 output=tmp_path / "run", distill=[Stage(epochs=1)], teacher={"model": tmp_path / "bert"})
    assert found.recipe == from_options({
        "task": "text-classification", "student": {"layers": {"keep": [0, 3]}}, "data": str(tmp_path / "a.csv"), "seed": 7,
        "output": str(tmp_path / "run"), "distill": {"epochs": 1}, "teacher": str(tmp_path / "bert")})
    assert not found.given


ROWS = TEXTS.to_list()


@pytest.mark.slow
@pytest.mark.parametrize("given", [TEXTS, ROWS, {"text": TEXTS["text"], "label": TEXTS["label"]}, pd.DataFrame(ROWS)],
                         ids=["dataset", "rows", "columns", "frame"])
def test_every_form_of_the_same_examples_is_read_as_they_are(tmp_path: Path, given: Any) -> None:
    for number, section in enumerate([given, {"train": given, "validation": given, "text": "text"}]):
        recipe = written(tmp_path / str(number), data=section)
        splits = data.load(recipe.data, seed=0)
        assert [len(split) for split in splits.values()] == [[2, 1], [3, 3]][number]
        rows = [row for split in splits.values() for row in split]
        assert sorted(rows, key=str)[:: 1 + number] == sorted(ROWS, key=str)


def test_where_something_is_given_a_run_is_called_after_its_task() -> None:
    assert call(data=TEXTS).recipe.output == "runs/text-classification"
    assert call(data=TEXTS, task="mine.tasks:Own").recipe.output == "runs/Own"
    assert call(None, "output=there", data=TEXTS).recipe.output == "there"


def test_splits_of_a_dict_keep_their_names_and_classes(tmp_path: Path) -> None:
    features = Features({"text": Value("string"), "label": ClassLabel(names=["yes", "no"])})
    some = Dataset.from_dict({"text": ["a", "b"], "label": [0, 1]}, features=features)
    recipe = written(tmp_path, data={"train": DatasetDict(train=some, dev=some.select([1]), odd=some.select([0]),
                                                          test=some.select([0])), "test": {"name": "odd"}})
    splits = data.load(recipe.data, seed=0)
    assert {name: split.to_list() for name, split in splits.items()} == {
        "train": some.to_list(), "validation": [some[1]], "test": [some[0]]}
    assert splits["train"].features == features
    assert data.load(written(tmp_path / "all", data=DatasetDict(train=some, dev=some)).data, seed=0).keys() == {
        "train", "validation"}


def test_pictures_and_sound_come_along_whole(tmp_path: Path) -> None:
    picture, sound = tmp_path / "red.png", tmp_path / "one.wav"
    PIL.Image.new("RGB", (4, 4), (200, 0, 0)).save(picture)
    sound.write_bytes(b"RIFF....")
    files = Dataset.from_dict({"image": [str(picture)], "audio": [str(sound)]}).cast_column("image", Image())
    files = files.cast_column("audio", Audio(decode=False))
    recipe = written(tmp_path / "run", data=files)
    picture.unlink()
    sound.unlink()
    there = load_from_disk(recipe.data.train)
    assert there[0]["image"].getpixel((1, 1)) == (200, 0, 0)
    assert there[0]["audio"]["bytes"] == b"RIFF...."
    assert there.features == files.features


def test_a_picture_that_is_not_there_is_named(tmp_path: Path) -> None:
    files = Dataset.from_dict({"image": [str(tmp_path / "gone.png")]}).cast_column("image", Image())
    with pytest.raises(DataError, match=r"data\.train: names a file that is not there: .*gone\.png"):
        written(tmp_path / "run", data=files)
    assert not (tmp_path / "run").exists()


def test_equal_content_is_written_once_and_other_content_beside_it(tmp_path: Path) -> None:
    first = written(tmp_path, data={"train": TEXTS, "validation": ROWS})
    assert first.data.train == first.data.validation
    state = next((tmp_path / "data").glob("*/state.json"))
    before = state.stat().st_mtime_ns
    again = written(tmp_path, data={"train": pd.DataFrame(ROWS), "validation": TEXTS})
    assert again.data == first.data
    assert state.stat().st_mtime_ns == before
    with call(tmp_path, data=ROWS[:2]).written_down() as other:
        assert Path(other.data.train).is_dir()
        assert other.data.train != first.data.train
        assert state.exists()


def test_what_no_recipe_names_is_not_kept(tmp_path: Path) -> None:
    run = tmp_path / "run"
    first = written(run, data=TEXTS, processing_class=tiny.tokenizer())
    with pytest.raises(ZeroDivisionError), call(run, data=ROWS[:2]).written_down():
        raise ZeroDivisionError
    assert list((run / "data").iterdir()) == [Path(first.data.train)]
    second = written(run, data=ROWS[:1])
    assert list((run / "data").iterdir()) == [Path(second.data.train)]
    assert not (run / "start").exists()
    with pytest.raises(ZeroDivisionError), call(tmp_path / "new", data=TEXTS).written_down():
        raise ZeroDivisionError
    assert not (tmp_path / "new").exists()


def test_what_was_damaged_is_written_anew(tmp_path: Path) -> None:
    model = loaded(tmp_path / "bert")
    with torch.no_grad():
        model.classifier.bias += 1
    first = written(tmp_path / "run", data=TEXTS, teacher=(model, tiny.tokenizer()))
    next(Path(first.data.train).glob("*.arrow")).write_bytes(b"")
    (Path(first.teacher.model) / "model.safetensors").write_bytes(b"")
    again = written(tmp_path / "run", data=TEXTS, teacher=(model, tiny.tokenizer()))
    assert (again.data, again.teacher) == (first.data, first.teacher)
    assert load_from_disk(again.data.train).to_list() == ROWS
    assert is_saved_in(model, Path(again.teacher.model))


def test_a_folder_of_other_things_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(RecipeError, match="no run of Stilla"), call(tmp_path, data=TEXTS).written_down():
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.slow
def test_a_model_is_written_as_it_is_now(tmp_path: Path) -> None:
    model = loaded(tmp_path / "bert").to(torch.bfloat16)
    with torch.no_grad():
        model.classifier.weight += 1
    model.config.id2label = {0: "food", 1: "music", 2: "sport"}
    recipe = written(tmp_path / "run", teacher=(model, tiny.tokenizer()), student={"model": (model, tiny.tokenizer())})
    assert recipe.teacher.model == recipe.student.model
    again = AutoModelForSequenceClassification.from_pretrained(recipe.teacher.model)
    assert again.config.id2label == model.config.id2label
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in model.state_dict().items())
    assert AutoTokenizer.from_pretrained(recipe.teacher.model)("soup")["input_ids"] == tiny.tokenizer()("soup")["input_ids"]
    for change in (lambda: model.classifier.weight.data.add_(1),
                   lambda: setattr(model.config, "id2label", {0: "x", 1: "y", 2: "z"}),
                   lambda: setattr(model.config, "problem_type", "regression")):
        change()
        assert written(tmp_path / "run", teacher=(model, tiny.tokenizer())).teacher.model != recipe.teacher.model


def test_another_tokenizer_is_another_model(tmp_path: Path) -> None:
    model, tokenizer = loaded(tmp_path / "bert"), tiny.tokenizer()
    model.config.id2label = {0: "food", 1: "music", 2: "sport"}
    first = written(tmp_path / "run", teacher=(model, tokenizer))
    tokenizer.model_max_length = 8
    assert written(tmp_path / "run", teacher=(model, tokenizer)).teacher.model != first.teacher.model


def test_a_model_that_is_as_it_was_loaded_is_named_by_its_folder(tmp_path: Path) -> None:
    folder = tmp_path / "bert"
    model = loaded(folder)
    assert written(tmp_path / "run", teacher=model).teacher.model == str(folder)
    with_other = written(tmp_path / "run", teacher={"model": model, "processor": tiny.tokenizer(), "train": {"epochs": 1}})
    assert (with_other.teacher.model, with_other.teacher.train is not None) == (str(folder), True)
    assert AutoTokenizer.from_pretrained(with_other.teacher.processor).get_vocab() == tiny.tokenizer().get_vocab()
    assert not is_saved_in(AutoModel.from_pretrained(folder), folder)
    model.classifier.bias.data += 1
    changed = written(tmp_path / "run", teacher=model).teacher
    assert Path(changed.model).parent == tmp_path / "run" / "start"
    assert changed.processor == str(folder)


def test_one_processor_serves_every_model_that_is_given_without(tmp_path: Path) -> None:
    teacher, student = (loaded(tmp_path / name) for name in ("large", "small"))
    for model in (teacher, student):
        model.name_or_path = ""
        model.config._name_or_path = ""
    recipe = written(tmp_path / "run", teacher=teacher, student={"model": student, "lora": {"r": 2}},
                     processing_class=tiny.tokenizer())
    for model in (recipe.teacher.model, recipe.student.model):
        assert (Path(str(model)) / "tokenizer.json").is_file()
    assert call(teacher="./bert", processing_class=tiny.tokenizer()).given.keys() == {("teacher", "processor")}


def test_an_image_model_takes_its_image_processor(tmp_path: Path) -> None:
    model = ViTForImageClassification(ViTConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=2,
                                                intermediate_size=8, image_size=8, patch_size=4))
    processor = ViTImageProcessorPil(size={"height": 8, "width": 8})
    recipe = written(tmp_path, task="image-classification", teacher=(model, processor))
    assert (Path(recipe.teacher.model) / "preprocessor_config.json").is_file()


def test_an_override_wins_over_what_was_given(tmp_path: Path) -> None:
    found = call(tmp_path, "data.train=other.csv", data={"train": TEXTS, "validation": ROWS})
    assert found.recipe.data.train == "other.csv"
    assert set(found.given) == {("data", "validation")}


def test_everything_that_is_wrong_is_said_at_once_and_in_short(tmp_path: Path) -> None:
    model = loaded(tmp_path / "bert")
    model.name_or_path = ""
    many = [TEXTS] * 100_000
    with pytest.raises(RecipeError) as raised:
        call(tmp_path, data={"train": (row for row in ROWS), "validation": np.zeros((9, 9)), "txt": TEXTS}, teacher=model,
             student=nn.Linear(2, 2), seed=many, export=many, distill={"epochs": torch.zeros(3)}, evaluate=model,
             learning_rates=TEXTS, processing_class="bert")
    words = str(raised.value)
    for part in ("data.train: got generator", "data.validation: got numpy.ndarray of shape (9, 9)",
                 "data.txt: got datasets.Dataset",
                 "teacher.model: the transformers.BertForSequenceClassification comes without a tokenizer",
                 "student.model: got torch.Linear, which is no Hugging Face model", "'package.module:callable'",
                 "seed[0]: got datasets.Dataset", "export[0]: got datasets.Dataset", "distill.epochs: got torch.Tensor",
                 "evaluate: got transformers.Bert", "learning_rates: unknown key", "processing_class: got str"):
        assert part in words, part
    assert len(words) < 4000
    assert not (tmp_path / "data").exists()


@pytest.mark.slow
@pytest.mark.parametrize("wrong", [
    {"data": DatasetDict(train=TEXTS, test=TEXTS), "distil": 1}, {"data": None}, {"seed": [1] * 10**6},
    {"student": {"layers": "x" * 10**6}}, {"teacher": {"modle": "a"}}])
def test_words_stay_short_whatever_is_wrong(wrong: dict[str, Any]) -> None:
    with pytest.raises(RecipeError) as raised:
        call(**wrong)
    assert len(str(raised.value)) < 500


@pytest.mark.parametrize(("name", "words"), [
    ("processor", "processing_class="), ("tokenizer", "processing_class="), ("train_dataset", "data="),
    ("model", "teacher= and"), ("distil", "Did you mean distill")])
def test_what_other_tools_call_things_is_told_where_it_belongs(name: str, words: str) -> None:
    with pytest.raises(RecipeError, match=f"{name}: unknown key.*{words}"):
        call(**{name: TEXTS})


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # peft asks transformers for it
def test_adapters_become_part_of_the_model(tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    model = loaded(tmp_path / "bert")
    model.add_adapter(peft.LoraConfig(r=2, target_modules=["query"], init_lora_weights=False))
    inputs = tiny.tokenizer()("a soup", return_tensors="pt")
    expected = model.eval()(**inputs).logits
    recipe = written(tmp_path / "run", teacher=(model, tiny.tokenizer()))
    again = AutoModelForSequenceClassification.from_pretrained(recipe.teacher.model)
    torch.testing.assert_close(again(**inputs).logits, expected)
    before = (Path(recipe.teacher.model) / "model.safetensors").stat().st_mtime_ns
    assert written(tmp_path / "run", teacher=(model, tiny.tokenizer())).teacher == recipe.teacher
    assert (Path(recipe.teacher.model) / "model.safetensors").stat().st_mtime_ns == before
    with pytest.raises(RecipeError, match="merge_and_unload"):
        call(teacher=peft.get_peft_model(loaded(tmp_path / "bert"), peft.LoraConfig(target_modules=["query"])))


def test_a_section_and_a_pair_may_say_the_same(tmp_path: Path) -> None:
    found = call(teacher=Teacher(model="./bert", precision="bfloat16"), processing_class=tiny.tokenizer())
    assert (found.recipe.teacher.model, found.recipe.teacher.precision) == ("./bert", "bfloat16")
    assert set(found.given) == {("teacher", "processor")}
    assert set(call(teacher=("./bert", tiny.tokenizer())).given) == {("teacher", "processor")}
    with pytest.raises(RecipeError, match="expected one"):
        call(teacher={"model": ("./bert", tiny.tokenizer()), "processor": "./other"})


@pytest.mark.slow
def test_models_that_cannot_be_written_down_are_refused(tmp_path: Path) -> None:
    model = loaded(tmp_path / "bert")
    for wrong, words in ((loaded(tmp_path / "bert").to("meta"), "not in memory"), (BertForSequenceClassification, "got type"),
                         (nn.DataParallel(loaded(tmp_path / "bert")), "the model inside of it"),
                         ((model, model), "expected a tokenizer or an image processor")):
        with pytest.raises(RecipeError, match=words):
            call(tmp_path / "run", teacher=wrong)
    quantised = loaded(tmp_path / "bert")
    quantised.config.quantization_config = {"quant_method": "bitsandbytes"}
    with pytest.raises(RecipeError, match=r"quantised.*precision"):
        call(tmp_path / "run", teacher=quantised)
    assert not (tmp_path / "run").exists()


def test_where_another_run_is_at_work_nothing_is_written(tmp_path: Path) -> None:
    written(tmp_path, data=ROWS)
    before = sorted((tmp_path / "data").iterdir())
    with (RunFolder(tmp_path).held(), pytest.raises(FolderError, match="at work in it"),
          call(tmp_path, data=ROWS[:1]).written_down()):
        pass
    assert sorted((tmp_path / "data").iterdir()) == before


# --- unlabelled examples ---

POOL = Dataset.from_dict({"text": ["a drum", "a race"]})


@pytest.mark.slow
@pytest.mark.parametrize("pool", [
    POOL, DatasetDict({"unsupervised": POOL, "test": TEXTS}), pd.DataFrame(POOL.to_dict()), POOL.to_dict(), POOL.to_list(),
    {"examples": POOL, "min_confidence": 0.5}, {"examples": [POOL]}, [POOL],
], ids=["dataset", "dict of splits", "frame", "columns", "rows", "section", "section of several", "several"])  # fmt: skip
def test_unlabelled_examples_may_be_whatever_labelled_ones_may(pool: Any, tmp_path: Path) -> None:
    recipe = written(tmp_path / "run", data={"train": TEXTS, "validation": "v.csv", "unlabelled": pool})
    assert recipe.data.unlabelled is not None
    (place,) = recipe.data.unlabelled.examples
    assert place.startswith(str(tmp_path / "run" / "data" / "unlabelled-"))
    (found,) = data.load_unlabelled(recipe.data, seed=recipe.seed).values()
    assert found["text"][:] == ["a drum", "a race"]
    assert recipe.data.unlabelled.min_confidence == (0.5 if isinstance(pool, dict) and "min_confidence" in pool else None)
    again = written(tmp_path / "run", data={"train": TEXTS, "validation": "v.csv", "unlabelled": pool})
    assert again == recipe


def test_unlabelled_names_and_data_stand_beside_each_other(tmp_path: Path) -> None:
    other = Dataset.from_dict({"text": ["a choir"]})
    recipe = written(tmp_path / "run", data={"train": "t.csv", "unlabelled": ["a.txt", POOL, tmp_path / "b.csv", other]})
    assert recipe.data.unlabelled is not None
    first, second, third, fourth = recipe.data.unlabelled.examples
    assert (first, third, recipe.data.train) == ("a.txt", str(tmp_path / "b.csv"), "t.csv")
    assert [load_from_disk(place)["text"][:] for place in (second, fourth)] == [["a drum", "a race"], ["a choir"]]


@pytest.mark.parametrize("pool", ["a.txt", ["a.txt", "b.txt"], {"examples": "a.txt", "limit": 3},
                                  {"generate": {"model": "./lm", "count": 5}}])
def test_unlabelled_names_are_a_recipes_own(pool: Any) -> None:
    found = call(data={"train": "t.csv", "unlabelled": pool})
    assert not found.given
    assert found.recipe == from_options({**TASK, "data": {"train": "t.csv", "unlabelled": pool}, "output": "runs/t"})


def test_without_labelled_data_the_run_is_called_by_its_task() -> None:
    found = call(data={"validation": TEXTS, "unlabelled": [{"text": "a drum"}]})
    assert found.recipe.output == "runs/text-classification"
    assert set(found.given) == {("data", "validation"), ("data", "unlabelled", "examples", 0)}
    assert found.recipe.data.train is None
    assert call(data={"train": "t.csv", "unlabelled": POOL}).recipe.output == "runs/t"


def test_what_an_override_replaces_of_unlabelled_examples_is_not_kept(tmp_path: Path) -> None:
    both = {"train": "t.csv", "unlabelled": [POOL, POOL]}
    assert set(call(None, "data.unlabelled.examples.0=x.txt", data=both).given) == {("data", "unlabelled", "examples", 1)}
    assert not call(None, "data.unlabelled=x.txt", data=both).given
    assert not call(None, "data.unlabelled=null", data=both).given


def test_unlabelled_examples_that_are_none_are_refused_with_their_place() -> None:
    with pytest.raises(RecipeError, match=r"data\.unlabelled\.examples\.1: got int; expected a file, a folder"):
        call(data={"train": "t.csv", "unlabelled": ["a.txt", 7]})
