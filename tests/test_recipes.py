"""Every recipe that comes along runs as it is written, on tiny models and data in place of its own. Those that ask a teacher
behind an address run in `test_run_api.py`."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path

import PIL.Image
import pytest
from datasets import ClassLabel, Dataset, Features, Image
from transformers import BertConfig, BertForSequenceClassification

import stilla
from stilla.cache import Store
from stilla.recipe import Recipe
from stilla.recipe.file import read
from stilla.tasks import KINDS
from stilla.tasks.text.sections import Contextual, TextClassificationData
from tests import offering, tiny
from tests.students import speaking
from tests.tasks import pairs, tiny_lm
from tests.tasks.audio import setting as sounds
from tests.tasks.audio import speakers, talkers, writers
from tests.tasks.recommendation.setting import histories
from tests.tasks.retrieval.rerankers import folder as reranker
from tests.tasks.retrieval.setting import folder as vectors
from tests.tasks.retrieval.setting import scored, sentences, triples
from tests.tasks.text import answerers, taggers
from tests.tasks.tiny import vit_folder
from tests.tasks.vision import detecting, scenes, segmenting
from tests.tasks.vision_text import tellers
from tests.tasks.vision_text.setting import captioned, clip_folder

RECIPES = sorted((Path(__file__).parents[1] / "recipes").glob("*.yaml"))
UNLABELLED = ("several-languages",)
"""Those from whose data nobody could learn by labels alone."""
QUICK = ("evaluate.resamples=100", "evaluate.speed=false", "export=[]", "data.config=null", "allow_weak_teacher=true")

every = pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)


@every
def test_its_shape_is_right_and_it_compares_with_labels_alone(recipe: Path) -> None:
    assert read(recipe).evaluate.baseline == (recipe.stem not in UNLABELLED)
    assert read(recipe).output == f"runs/{recipe.stem}"


@every
def test_it_begins_with_what_it_is_and_how_to_run_it(recipe: Path) -> None:
    text = recipe.read_text(encoding="utf-8")
    assert text.startswith("# ")
    assert f"#   stilla run recipes/{recipe.name}\n" in text


@pytest.mark.slow
@pytest.mark.parametrize("recipe", [path for path in RECIPES if read(path).teacher.api is None], ids=lambda path: path.stem)
def test_it_runs(recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    written = read(recipe)
    stages = [*(["teacher.train"] if written.evaluate.baseline else []),
              *(f"distill.{number}" for number in range(len(written.distill)))]
    steps = [f"{stage}.{field}" for stage in stages for field in ("max_steps=3", "batch_size=8", "precision=float32")]
    seen = offering.Seen()
    monkeypatch.setattr("stilla.check.way.fit", seen.fit)
    run = stilla.distill(recipe, *_tiny(written, tmp_path), *QUICK, *steps)
    simple = {"popularity"} if written.task == "recommendation" else set()
    assert set(run.scores.subjects) == {"teacher", "student", *({"baseline"} if written.evaluate.baseline else ()), *simple}
    assert run.report.exists()
    offering.hold(recipe.stem, written.task, seen)
    assert run.scores.student[run.scores.metric] is not None
    assert bool(run.scores.learnt.get("unlabelled")) == (written.data.unlabelled is not None)
    kept = read(run.folder / "recipe.yaml")
    if written.cache.form is not None:
        coder = Store(run.folder / "cache").manifest.logits
        assert coder is not None
        assert coder.kind == written.cache.form == kept.cache.form
    for stage, given in zip(kept.distill, written.distill, strict=True):
        assert given.objectives is None or stage.objectives == given.objectives


def test_there_is_one_for_every_task_one_in_two_stages_and_a_language_model_live_and_from_a_cache() -> None:
    recipes = [read(path) for path in RECIPES]
    assert {recipe.task for recipe in recipes} == set(KINDS)
    assert any(len(recipe.distill) == 2 for recipe in recipes)
    assert {recipe.cache.form for recipe in recipes if recipe.task == "causal-lm"} == {None, "top_k"}


def _tiny(recipe: Recipe, folder: Path) -> list[str]:
    """Overrides that put tiny data and a tiny teacher of twelve layers in the place of the recipe's own."""
    if recipe.task == "seq2seq":
        return _writing(folder, recipe)
    if recipe.task == "token-classification":
        return _words(folder, recipe)
    if recipe.task == "several":
        files = {"intents": tiny.texts(folder / "intents", train=48, validation=24, test=24),
                 "tags": {split: taggers.conllu(folder / f"{split}.conllu", size, "upos", seed)
                          for seed, (split, size) in enumerate((("train", 48), ("validation", 12), ("test", 12)))}}
        return [*(f"data.parts.{name}.data.{split}={path}" for name, own in files.items() for split, path in own.items()),
                "data.parts.intents.data.label=topic", f"teacher.model={tiny.bert(folder / 'teacher', layers=12, width=16)}"]
    if recipe.task == "question-answering":
        files = {split: answerers.squad(folder / f"{split}.json", size, seed)
                 for seed, (split, size) in enumerate((("train", 64), ("test", 16)))}
        return [*(f"data.{split}={path}" for split, path in files.items()), "data.max_length=48", "data.longest_answer=4",
                "data.validation.split=0.25", f"teacher.model={answerers.folder(folder / 'teacher', layers=12)}"]
    if recipe.task in ("causal-lm", "masked-lm"):
        return _language(folder, recipe)
    if recipe.task == "embedding" and recipe.teacher.data:
        return _translations(folder, recipe)
    if recipe.task == "embedding":
        files = {split: scored(folder / f"{split}.jsonl", size, seed, most=1)
                 for seed, (split, size) in enumerate({"train": 48, "validation": 16, "test": 16}.items())}
        return [*(f"data.{split}={path}" for split, path in files.items()),
                f"teacher.model={vectors(folder / 'teacher', layers=12)}"]
    if recipe.task == "reranking":
        files = {split: triples(folder / f"{split}.jsonl", size, seed)
                 for seed, (split, size) in enumerate({"train": 48, "validation": 16, "test": 16}.items())}
        return [*(f"data.{split}={path}" for split, path in files.items()), "data.config=null", "data.limit=null",
                f"teacher.model={reranker(folder / 'teacher', layers=12)}", "data.max_length=32"]
    if recipe.task == "image-text":
        files = {split: captioned(folder / f"{split}.parquet", size, 16 * seed, each=5, beside=recipe.data.text)
                 for seed, (split, size) in enumerate({"train": 16, "validation": 8, "test": 8}.items())}
        return [*(f"data.{split}={path}" for split, path in files.items()),
                f"teacher.model={clip_folder(folder / 'teacher', layers=12)}", "data.max_length=32"]
    if recipe.task == "image-text-to-text":
        files = {split: captioned(folder / f"{split}.parquet", size, 16 * seed, each=5, beside=[recipe.data.completion])
                 for seed, (split, size) in enumerate({"train": 16, "validation": 4, "test": 4}.items())}
        return [*(f"data.{split}={path}" for split, path in files.items()), "evaluate.generation.max_new_tokens=4",
                f"teacher.model={tellers.folder(folder / 'teacher', 'qwen2_vl', layers=28, width=16)}"]
    if recipe.task == "semantic-segmentation":
        files = {split: scenes.table(folder / f"{split}.parquet", size, 100 * number)
                 for number, (split, size) in enumerate({"train": 24, "validation": 8, "test": 8}.items())}
        teacher = scenes.segformer(folder / "teacher", scenes.NAMES[1:], depths=[2, 2, 2, 2])
        return [*(f"data.{split}={path}" for split, path in files.items()), "data.mask=mask", f"teacher.model={teacher}",
                f"student.model={scenes.segformer(folder / 'student', scenes.NAMES[1:], depths=[1, 1, 1, 1])}"]
    if recipe.task == "speech-recognition" and recipe.completions is not None:
        return [f"data.train={speakers.utterances(folder / 'speech', 24)}", "completions.max_wer=1000",
                f"teacher.model={writers.folder(folder / 'teacher', encoder_layers=12, decoder_layers=12)}"]
    if recipe.task == "speech-recognition":
        return [f"data.train={speakers.utterances(folder / 'speech', 24)}",
                f"teacher.model={speakers.folder(folder / 'teacher', num_hidden_layers=12)}"]
    if recipe.task == "text-to-speech":
        return [f"data.train={talkers.ljspeech(folder / 'speech', 24)}",
                f"teacher.model={talkers.folder(folder / 'teacher', encoder_layers=6, decoder_layers=3)}"]
    if recipe.task == "audio-classification":
        return [f"data.train={sounds.folders(folder / 'sounds', 24)}",
                f"teacher.model={sounds.folder(folder / 'teacher', num_hidden_layers=12)}"]
    if recipe.task == "recommendation":
        path = folder / "events.csv"
        rows = [f"{user},{item},{1000 + 7 * place + user / 99}" for user, line in enumerate(histories(60))
                for place, item in enumerate(line)]
        path.write_text("\n".join(["user,item,time", *rows]) + "\n", encoding="utf-8")
        return [f"data.train={path}", "teacher.config.hidden_size=16", "data.validation.split=0.2", "data.test.split=0.2"]
    if recipe.task == "object-detection":
        files = {split: detecting.coco(folder / split, size, seed)
                 for seed, (split, size) in enumerate({"train": 16, "validation": 8}.items())}
        models = {who: detecting.folder(folder / who, "rt-detr-v2", seed=seed)
                  for seed, who in enumerate(("teacher", "student"))}
        return [*(f"data.{split}={path}" for split, path in files.items()),
                *(f"{who}.model={path}" for who, path in models.items())]
    if recipe.task == "image-segmentation":
        files = {split: segmenting.coco(folder / split, size, 50 * seed)
                 for seed, (split, size) in enumerate({"train": 16, "validation": 8}.items())}
        models = {who: segmenting.folder(folder / who, "mask2former", seed=seed)
                  for seed, who in enumerate(("teacher", "student"))}
        return [*(f"data.{split}={path}" for split, path in files.items()),
                *(f"{who}.model={path}" for who, path in models.items())]
    if recipe.task == "image-classification":
        data, teacher = _pictures(folder, recipe), vit_folder(folder / "teacher", num_hidden_layers=12)
    else:
        data, teacher = _texts(folder, recipe), Path(tiny.bert(folder / "teacher", layers=12, width=16))
        if recipe.student.vocabulary is not None:  # of pieces, not of whole words
            pieces = speaking.bert()
            BertForSequenceClassification(BertConfig(
                vocab_size=len(pieces), hidden_size=16, num_hidden_layers=12, num_attention_heads=2, intermediate_size=32,
                max_position_embeddings=64)).save_pretrained(teacher)
            pieces.save_pretrained(teacher)
    given = [] if recipe.student.model is None else [f"student.model={tiny.bert(folder / 'student', layers=2, width=16)}"]
    return [*(f"data.{split}={path}" for split, path in data.items()), f"teacher.model={teacher}", *given,
            *_pool(folder, recipe), *_words_for_others(folder, recipe)]


def _translations(folder: Path, recipe: Recipe) -> list[str]:
    """Sentences in a language of their own with their English, and pairs of both to be found by each other."""
    files = {}
    for seed, (split, size) in enumerate({"train": 48, "validation": 16, "test": 16, "shifted.back": 16}.items()):
        english = sentences(size, seed)
        both = {"query": [" ".join(text.split()[::-1]) for text in english], "positive": english}
        rows = {"text": [*both["query"], *english], "english": english * 2} if split == "train" else \
            dict(zip(both, reversed(both.values()))) if split == "shifted.back" else both
        files[split] = str(folder / f"{split}.csv")
        Dataset.from_dict(rows).to_csv(files[split])
    return [*(f"data.{split}={path}" for split, path in files.items()), f"teacher.model={vectors(folder / 'teacher')}",
            f"student.model={vectors(folder / 'student', layers=1)}"]


def _words_for_others(folder: Path, recipe: Recipe) -> list[str]:
    """A tiny masked language model that knows other words than teacher and student."""
    if not isinstance(recipe.data, TextClassificationData) or not isinstance(recipe.data.augment, Contextual):
        return []
    model = tiny_lm.folder(folder / "masked", tiny_lm.bert_lm(), tiny_lm.bert_lm_tokenizer())
    return [f"data.augment.model={model}"]


def _writing(folder: Path, recipe: Recipe) -> list[str]:
    """Pairs in the recipe's columns, and a tiny model of the family that its teacher is of."""
    rows = pairs.pairs(48)
    names = [name.split(".") for name in (recipe.data.source, recipe.data.target) if name]
    files = {}
    for split, size in (("train", 48), ("validation", 12), ("test", 12)):
        path = folder / f"{split}.jsonl"
        sides = zip(*(side[:size] for side in rows.values()))
        lines = [_nested(dict(zip(("source", "target"), row)), names) for row in sides]
        path.write_text("\n".join(map(json.dumps, lines)) + "\n", encoding="utf-8")
        files[split] = str(path)
    family = "bart" if "bart" in recipe.teacher.model else "t5"
    teacher = pairs.folder(folder / "teacher", family, seed=5, layers=12)
    quick = ["evaluate.generation.max_new_tokens=4", "evaluate.generation.num_beams=1"]
    if recipe.completions is not None:
        quick += ["completions.max_new_tokens=4", "completions.num_beams=2", "completions.min_log_probability=null"]
    return [f"data.{split}={path}" for split, path in files.items()] + [f"teacher.model={teacher}", *quick]


def _words(folder: Path, recipe: Recipe) -> list[str]:
    """Sentences with tags in the recipe's column and form, and a tiny tagger's body."""
    files = {split: taggers.conllu(folder / f"{split}.conllu", size, str(recipe.data.tags), seed)
             for seed, (split, size) in enumerate((("train", 48), ("validation", 12), ("test", 12)))}
    teacher = taggers.folder(folder / "teacher", layers=12)
    return [f"data.{split}={path}" for split, path in files.items()] + [f"teacher.model={teacher}"]


def _nested(row: Mapping[str, str], names: Sequence[Sequence[str]]) -> dict[str, object]:
    """`translation.en` is a field of a column."""
    made: dict[str, object] = {}
    for (top, *inner), text in zip(names, row.values(), strict=True):
        if inner:
            column = made.setdefault(top, {})
            assert isinstance(column, dict)
            column[inner[0]] = text
        else:
            made[top] = text
    return made


def _language(folder: Path, recipe: Recipe) -> list[str]:
    """Sentences with an empty one among them, and a tiny causal or masked model of twelve layers."""
    (column,) = recipe.data.text or ("text",)
    files = {}
    for split, size in (("train", 48), ("validation", 12), ("test", 12)):
        path = folder / f"{split}.jsonl"
        rows = ["", *tiny_lm.sentences(size)]
        path.write_text("\n".join(json.dumps({column: text}) for text in rows) + "\n", encoding="utf-8")
        files[split] = str(path)
    causal = recipe.task == "causal-lm"
    model = tiny_lm.gpt2(n_layer=12) if causal else tiny_lm.bert_lm(num_hidden_layers=12)
    tokenizer = tiny_lm.byte_tokenizer() if causal else tiny_lm.bert_lm_tokenizer()
    teacher = tiny_lm.folder(folder / "teacher", model, tokenizer)
    return [*(f"data.{split}={path}" for split, path in files.items()), f"teacher.model={teacher}", "data.max_length=32"]


def _texts(folder: Path, recipe: Recipe) -> dict[str, str]:
    """The tiny topics in the recipe's columns: a class, a list of classes, or a number."""
    files = tiny.texts(folder / "data", train=48, validation=24, test=24)
    for file in files.values():
        rows = [json.loads(line) for line in Path(file).read_text(encoding="utf-8").splitlines()]
        lines = [json.dumps(_in_columns(row, recipe, random.Random(index))) for index, row in enumerate(rows)]
        Path(file).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return files


def _pool(folder: Path, recipe: Recipe) -> list[str]:
    """Texts of other draws of the same words, with labels that are none."""
    if recipe.data.unlabelled is None:
        return []
    path = folder / "pool.jsonl"
    rows = [json.loads(line) for line in Path(tiny.texts(folder / "pool", seed=5)["train"]).read_text().splitlines()]
    path.write_text("\n".join(json.dumps({"text": row["text"], "label": -1}) for row in rows) + "\n", encoding="utf-8")
    return [f"data.unlabelled.examples={path}", "data.unlabelled.split=null"]


def _in_columns(row: Mapping[str, str], recipe: Recipe, draw: random.Random) -> dict[str, object]:
    texts: Sequence[str] = recipe.data.text or ("text",)
    (label,) = recipe.data.label or ("label",)
    several = recipe.data.label == ("labels",)
    value: object = [row["topic"], *draw.sample(["old", "new"], 1)] if several else row["topic"]
    if recipe.data.kind == "regression":
        value = round(draw.uniform(0, 5), 2)
    return {**dict.fromkeys([*texts, *recipe.teacher.columns.get("text", ())], row["text"]), label: value}


def _pictures(folder: Path, recipe: Recipe) -> dict[str, str]:
    """Grey squares, darker or brighter by class, as Parquet with the pictures' bytes."""
    (label,), image = recipe.data.label or ("label",), recipe.data.image or "image"
    features = Features({image: Image(), label: ClassLabel(names=["dark", "grey", "bright"])})
    files = {}
    for split, size in (("train", 48), ("validation", 24), ("test", 24)):
        pictures = []
        for index in range(size):
            written = BytesIO()
            PIL.Image.new("RGB", (12, 12), (80 * (index % 3) + 20,) * 3).save(written, "PNG")
            pictures.append({"bytes": written.getvalue(), "path": None})
        path = folder / f"{split}.parquet"
        Dataset.from_dict({image: pictures, label: [index % 3 for index in range(size)]}, features).to_parquet(path)
        files[split] = str(path)
    return files
