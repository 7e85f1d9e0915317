"""What tasks declare of a recipe: `recipe/kinds.py`, and the sections in `tasks/<wing>/sections.py`."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from stilla import tasks
from stilla.errors import RecipeError
from stilla.recipe import Data, Evaluate, Generation, Recipe, recipe_for
from stilla.recipe.file import draft, from_options, read
from stilla.recipe.kinds import COMMON, KINDS, PLACES, sections
from stilla.recipe.written import dump, every_field, json_schema
from stilla.recipe.yaml import load
from stilla.tasks.audio.sections import (
    AudioClassificationData,
    SpeechRecognitionData,
    TextToSpeechData,
    TextToSpeechEvaluate,
)
from stilla.tasks.language.sections import CausalLMData, MaskedLMData, Seq2SeqData, WritingEvaluate
from stilla.tasks.recommendation.sections import RecommendationData
from stilla.tasks.retrieval.sections import EmbeddingData, RerankingData
from stilla.tasks.several.sections import SeveralData
from stilla.tasks.text.sections import QuestionAnsweringData, TextClassificationData, TokenClassificationData
from stilla.tasks.vision.sections import DetectionData, ImageClassificationData
from stilla.tasks.vision.segmentation_section import ImageSegmentationData, SemanticSegmentationData
from stilla.tasks.vision_text.sections import ImageTextData, ImageTextToTextData

SMALL = {"data": "rows.csv", "teacher": "./teacher", "student": 3}
SECTIONS = {
    "text-classification": (TextClassificationData, Evaluate), "image-classification": (ImageClassificationData, Evaluate),
    "audio-classification": (AudioClassificationData, Evaluate),
    "speech-recognition": (SpeechRecognitionData, WritingEvaluate),
    "text-to-speech": (TextToSpeechData, TextToSpeechEvaluate),
    "causal-lm": (CausalLMData, WritingEvaluate), "masked-lm": (MaskedLMData, Evaluate),
    "seq2seq": (Seq2SeqData, WritingEvaluate), "token-classification": (TokenClassificationData, Evaluate),
    "question-answering": (QuestionAnsweringData, Evaluate),
    "embedding": (EmbeddingData, Evaluate), "reranking": (RerankingData, Evaluate), "image-text": (ImageTextData, Evaluate),
    "semantic-segmentation": (SemanticSegmentationData, Evaluate), "several": (SeveralData, Evaluate),
    "recommendation": (RecommendationData, Evaluate), "image-text-to-text": (ImageTextToTextData, WritingEvaluate),
    "object-detection": (DetectionData, Evaluate), "image-segmentation": (ImageSegmentationData, Evaluate),
}  # fmt: skip
OWN = """\
from stilla.recipe import Data, Evaluate
from stilla.tasks.base import Task

class Tables(Data):
    columns: int
    '''How many there are.'''

class Measured(Evaluate):
    folds: int = 5

class Tabular(Task[Tables]):
    data_section = Tables
    evaluate_section = Measured

class Plain(Task):
    pass

class Odd(Task):
    data_section = dict

class NoTask:
    pass
"""

every_task = pytest.mark.parametrize("task", KINDS)


def small(task, **data):
    return {**SMALL, "task": task, "data": {"train": "rows.csv", **data}}


def refused(options, *overrides):
    with pytest.raises(RecipeError) as caught:
        from_options(options, overrides)
    return str(caught.value)


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A task of a person's own in the current directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    Path("mine.py").write_text(OWN)
    yield "mine:Tabular"
    sys.modules.pop("mine", None)


# A recipe's sections


@every_task
def test_a_recipe_has_the_sections_of_its_task(task):
    least = dict(sections(task).data.example())
    recipe = from_options({**SMALL, "task": task, "data": least})
    assert (type(recipe.data), type(recipe.evaluate)) == SECTIONS[task]
    assert Recipe.model_validate({**SMALL, "task": task, "data": least, "output": "x"}).data == recipe.data
    assert Recipe(task=task, data=least, teacher=recipe.teacher, student=recipe.student,
                  output="x").data == recipe.data


@every_task
def test_the_table_says_what_the_classes_say(task):
    found = tasks.find(task)
    assert found.kind == task
    assert (found.data_section, found.evaluate_section) == (sections(task).data, sections(task).evaluate)


def test_what_every_task_has_is_what_means_something_to_every_task():
    assert set(Data.model_fields) == {"train", "validation", "test", "unlabelled", "shifted", "config", "revision", "header",
                                      "limit", "broken"}
    assert "generation" not in Evaluate.model_fields


@every_task
def test_every_field_of_a_task_is_explained(task):
    for place in PLACES:
        assert all(field.description for field in sections(task).at(place).model_fields.values())


@every_task
def test_a_dumped_recipe_of_every_task_reads_back_equal(task, tmp_path):
    recipe = from_options({**SMALL, "task": task, "data": dict(sections(task).data.example())})
    (tmp_path / "recipe.yaml").write_text(dump(recipe))
    assert read(tmp_path / "recipe.yaml") == recipe


# Fields of other tasks


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "field", "said"),
    [
        ("text-classification", "data.image=x", "data.image: a field of image-classification"),
        ("image-classification", "data.text=x", "data.text: a field of text-classification, token-classification, "),
        ("masked-lm", "data.pack=true", "data.pack: a field of causal-lm; masked-lm takes text, max_length, document, mask"),
        ("seq2seq", "data.augment=light", "data.augment: a field of text-classification, image-classification"),
        ("masked-lm", "evaluate.generation={}", "evaluate.generation: a field of seq2seq, speech-recognition, causal-lm and "
         "image-text-to-text; masked-lm takes baseline, seeds, metric, batch_size, slices, resamples, speed, watts and "
         "saliency"),
        ("text-classification", "data.lable=x", "data.lable: unknown key. Did you mean label?"),
        ("seq2seq", "data.prefx=x", "data.prefx: unknown key. Did you mean prefix?"),
        ("causal-lm", "evaluate.generation.metric=x", "evaluate.generation.metric: unknown key. Did you mean metrics?"),
        ("text-classification", "data.colour=x", "data.colour: unknown key; expected train, validation"),
        ("text-classification", "data.seeds=3", "data.seeds: unknown key here; it belongs to evaluate"),
        ("masked-lm", "data.mask=2", "data.mask: got 2; expected less than 1"),
        ("causal-lm", "data.document=page", 'data.document: got "page"; expected paragraph, line or file'),
    ],
)  # fmt: skip
def test_a_field_of_another_task_is_refused_by_the_name_of_its_own(task, field, said):
    assert f"command line: {said}" in refused(small(task), field)


@pytest.mark.slow
@pytest.mark.parametrize("task", ["text-clasification", "nothing", 5])
def test_of_a_task_that_does_not_exist_only_the_names_of_fields_are_looked_at(task, tmp_path):
    options = small(task, text=5, image="x", imge="y")
    (tmp_path / "recipe.yaml").write_text(json.dumps(options))
    half = draft(tmp_path / "recipe.yaml")
    problems = [one for one in half.problems if not one.startswith("recipe.yaml: task")]
    assert problems == ["recipe.yaml: data.imge: unknown key. Did you mean image?"]
    if isinstance(task, str):
        assert half.recipe.data.train == "rows.csv"
        with pytest.raises(RecipeError, match="task: got"):
            sections(task)


# A person's own task


@pytest.mark.slow
def test_an_own_task_declares_its_sections(own, tmp_path):
    recipe = from_options(small(own, columns=3))
    assert (recipe.data.columns, recipe.evaluate.folds) == (3, 5)
    (tmp_path / "recipe.yaml").write_text(dump(recipe))
    assert read(tmp_path / "recipe.yaml") == recipe
    assert "data.columns: missing; expected how many there are" in refused(small(own))
    assert 'data.columns: got "x"; expected a whole number' in refused(small(own, columns="x"))
    of_another = refused(small(own, columns=1, label="x"))
    assert "data.label: a field of text-classification, image-classification" in of_another
    assert f"{own} takes columns" in of_another
    assert "columns:" in every_field(own)
    tables = json_schema(own)["$defs"]["Tables"]
    assert (tables["required"], tables["anyOf"]) == (["columns"], [{"required": ["train"]}, {"required": ["unlabelled"]}])
    assert type(from_options(small("mine:Plain")).data) is Data
    assert "data.columns: unknown key" in refused(small("mine:Plain", columns=3))


@pytest.mark.parametrize(
    ("task", "said"),
    [
        ("mine:Odd", "its data_section is <class 'dict'>; expected a subclass of stilla.recipe.Data"),
        ("mine:NoTask", "which is not a subclass of stilla.tasks.base.Task"),
        ("mine:Missing", "task: 'mine:Missing': the module 'mine' has no 'Missing'"),
        ("absent:Task", "task: 'absent:Task': the module 'absent' cannot be imported"),
    ],
)
def test_an_own_task_that_is_none_is_refused_where_it_is_needed(own, task, said):
    recipe = from_options(small(task, anything=[1]))  # what its data may say is not known without it
    for call in (tasks.find, sections, every_field, json_schema):
        with pytest.raises(RecipeError, match=r"task|module") as caught:
            call(recipe.task)
        assert said in str(caught.value)


def test_a_section_that_cannot_say_how_texts_are_written_is_told_so():
    with pytest.raises(RecipeError, match=r"cannot say how; expected a subclass of .*WritingEvaluate"):
        Evaluate().with_writing(Generation())
    assert WritingEvaluate().with_writing(Generation(num_beams=2)).writing == Generation(num_beams=2)
    assert Evaluate().writing is None


# Lists and schemas


@pytest.mark.slow
@every_task
def test_the_list_of_a_task_is_a_recipe_with_all_that_it_takes_and_nothing_else(task, tmp_path):
    plain = load(every_field(task), "x")
    assert plain["task"] == task
    for place in PLACES:
        assert list(plain[place]) == list(sections(task).at(place).model_fields)
    (tmp_path / "recipe.yaml").write_text(every_field(task))
    assert read(tmp_path / "recipe.yaml").task == task


def test_the_whole_list_says_whose_a_field_is_and_reads_back(tmp_path):
    text = every_field()
    assert max(map(len, text.splitlines())) <= 110
    assert "  # document: paragraph         # causal-lm and masked-lm: What is one document" in text
    assert "  # generation: null            # seq2seq, speech-recognition, causal-lm and image-text-to-text: Let" in text
    for task in KINDS:
        for place in PLACES:
            assert all(f"  # {name}: " in text for name in sections(task).own(place))
    plain = load(text, "x")
    assert all(list(plain[place]) == list(COMMON.at(place).model_fields) for place in PLACES)
    (tmp_path / "recipe.yaml").write_text(text)
    assert read(tmp_path / "recipe.yaml").task == next(iter(KINDS))


@pytest.mark.slow
@every_task
def test_the_schema_of_a_task_knows_its_sections(task):
    schema = json_schema(task)
    assert schema["properties"]["task"]["const"] == task
    assert list(schema["properties"]) == list(Recipe.model_fields)
    for place, section in zip(PLACES, SECTIONS[task]):
        assert f"'#/$defs/{section.__name__}'" in str(schema["properties"][place])
        found = schema["$defs"][section.__name__]
        assert list(found["properties"]) == list(section.model_fields)
        assert found["additionalProperties"] is False


@pytest.mark.slow
def test_the_schema_of_all_tasks_follows_the_task_and_leaves_own_ones_open():
    schema = json_schema()
    json.dumps(schema)
    assert "additionalProperties" not in schema["$defs"]["Data"]
    assert {"$ref": "#/$defs/Data"} in schema["properties"]["data"]["anyOf"]
    by_task = {one["if"]["properties"]["task"]["const"]: one["then"]["properties"] for one in schema["allOf"]}
    assert list(by_task) == list(KINDS)
    for task, then in by_task.items():
        own = json_schema(task)["properties"]
        assert then == {place: own[place] for place in PLACES}
        assert all(one.rpartition("/")[2] in schema["$defs"] for one in str(then).split("'") if one.startswith("#/$defs/"))


def test_the_model_of_a_recipe_is_made_once_for_a_task():
    assert recipe_for("seq2seq") is recipe_for("seq2seq")
    assert recipe_for("seq2seq").model_fields["data"].annotation is Seq2SeqData


# Without torch


@pytest.mark.slow
def test_reading_a_recipe_of_any_task_and_what_is_wrong_with_it_needs_no_models_and_no_time():
    code = f"""
import sys, time
from stilla.recipe.file import draft_of_options
from stilla.recipe.kinds import sections
for task in {list(KINDS)!r}:
    least = dict(sections(task).data.example())
    plain = {{"task": task, "data": least, "teacher": "./t", "student": 3}}
    assert not draft_of_options(plain).problems
    assert draft_of_options({{**plain, "data": {{**least, "imge": 1, "prefix": 2, "image": "x"}}}}).problems
heavy = {{"torch", "transformers", "datasets", "numpy", "accelerate"}} & set(sys.modules)
sys.exit(f"imported {{heavy}}" if heavy else "slow" if time.process_time() > 3 else 0)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
