"""The one table of tasks: where each one's class stands, and the sections that say what a recipe may tell it.

All are import paths, followed when they are needed: sections need no torch, so that a recipe is checked without the
models that its task would load.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, get_args

from pydantic import ConfigDict, create_model

from stilla.errors import RecipeError, did_you_mean, one_of, short
from stilla.recipe.data import Data
from stilla.recipe.evaluate import Evaluate
from stilla.recipe.section import Section
from stilla.runtime.imports import import_path

Place = Literal["data", "evaluate"]
"""Of a recipe: what tasks declare."""
PLACES: tuple[Place, ...] = get_args(Place)


@dataclass(frozen=True)
class Kind:
    """A task: where its class stands, and the sections that it declares for `data` and `evaluate`."""

    task: str
    data: str
    evaluate: str = "stilla.recipe.evaluate:Evaluate"


KINDS: Mapping[str, Kind] = {
    "text-classification": Kind("stilla.tasks.text.text_classification:TextClassification",
                                "stilla.tasks.text.sections:TextClassificationData"),
    "token-classification": Kind("stilla.tasks.text.token_classification:TokenClassification",
                                 "stilla.tasks.text.sections:TokenClassificationData"),
    "question-answering": Kind("stilla.tasks.text.question_answering:QuestionAnswering",
                               "stilla.tasks.text.sections:QuestionAnsweringData"),
    "seq2seq": Kind("stilla.tasks.language.seq2seq:Seq2Seq",
                    "stilla.tasks.language.sections:Seq2SeqData", "stilla.tasks.language.sections:WritingEvaluate"),
    "image-classification": Kind("stilla.tasks.vision.image_classification:ImageClassification",
                                 "stilla.tasks.vision.sections:ImageClassificationData"),
    "semantic-segmentation": Kind("stilla.tasks.vision.segmentation:SemanticSegmentation",
                                  "stilla.tasks.vision.segmentation_section:SemanticSegmentationData"),
    "image-segmentation": Kind("stilla.tasks.vision.image_segmentation:ImageSegmentation",
                               "stilla.tasks.vision.segmentation_section:ImageSegmentationData"),
    "audio-classification": Kind("stilla.tasks.audio.audio_classification:AudioClassification",
                                 "stilla.tasks.audio.sections:AudioClassificationData"),
    "speech-recognition": Kind("stilla.tasks.audio.speech_recognition:SpeechRecognition",
                               "stilla.tasks.audio.sections:SpeechRecognitionData",
                               "stilla.tasks.language.sections:WritingEvaluate"),
    "text-to-speech": Kind("stilla.tasks.audio.text_to_speech:TextToSpeech",
                           "stilla.tasks.audio.sections:TextToSpeechData",
                           "stilla.tasks.audio.sections:TextToSpeechEvaluate"),
    "object-detection": Kind("stilla.tasks.vision.detection:Detection", "stilla.tasks.vision.sections:DetectionData"),
    "causal-lm": Kind("stilla.tasks.language.causal_lm:CausalLM",
                      "stilla.tasks.language.sections:CausalLMData", "stilla.tasks.language.sections:WritingEvaluate"),
    "masked-lm": Kind("stilla.tasks.language.masked_lm:MaskedLM",
                      "stilla.tasks.language.sections:MaskedLMData"),
    "embedding": Kind("stilla.tasks.retrieval.embedding:Embedding", "stilla.tasks.retrieval.sections:EmbeddingData"),
    "reranking": Kind("stilla.tasks.retrieval.reranking:Reranking", "stilla.tasks.retrieval.sections:RerankingData"),
    "image-text": Kind("stilla.tasks.vision_text.image_text:ImageText", "stilla.tasks.vision_text.sections:ImageTextData"),
    "image-text-to-text": Kind("stilla.tasks.vision_text.image_text_to_text:ImageTextToText",
                               "stilla.tasks.vision_text.sections:ImageTextToTextData",
                               "stilla.tasks.language.sections:WritingEvaluate"),
    "recommendation": Kind("stilla.tasks.recommendation.recommendation:Recommendation",
                           "stilla.tasks.recommendation.sections:RecommendationData"),
    "several": Kind("stilla.tasks.several.several:Several", "stilla.tasks.several.sections:SeveralData"),
}


@dataclass(frozen=True)
class Sections:
    """What a task's recipes may say under `data` and `evaluate`."""

    data: type[Data]
    evaluate: type[Evaluate]

    def at(self, place: Place) -> type[Section]:
        return self.data if place == "data" else self.evaluate

    def own(self, place: Place) -> tuple[str, ...]:
        """The fields there that not every task has."""
        return tuple(name for name in self.at(place).model_fields if name not in COMMON.at(place).model_fields)


COMMON = Sections(Data, Evaluate)
"""What every task has."""


def sections(task: str) -> Sections:
    """What a task of the table declares, or a person's own (`package.module:Class`), which is imported for it.

    Raises:
        RecipeError: no such task, it cannot be imported, or it is none.
    """
    if task in KINDS:
        return _of_table(task)
    refuse_unknown(task)
    try:
        found = import_path(task)
    except RecipeError as error:
        raise RecipeError(f"task: {error}") from error
    try:
        declared = Sections(found.data_section, found.evaluate_section)
    except AttributeError:
        raise not_a_task(task) from None
    for place in PLACES:
        section, common = declared.at(place), COMMON.at(place)
        if not (isinstance(section, type) and issubclass(section, common)):
            raise RecipeError(f"task: {task!r}: its {place}_section is {section!r}; expected a subclass of "
                              f"stilla.recipe.{common.__name__}.")
    return declared


def sections_or_any(task: object) -> Sections:
    """The same; of a task that cannot be found, whatever could be meant, so that the rest of a recipe can be looked at.

    That there is no such task is for those to say who need it. Until then a field is only known to be wrong if no task
    has it; of a person's own task nothing is known without its class.
    """
    try:
        return sections(task if isinstance(task, str) else "")
    except RecipeError:
        return _anything() if isinstance(task, str) and ":" in task else _of_any_task()


def owners(place: Place, field: str) -> tuple[str, ...]:
    """The tasks of the table that have this field there, where not every task does."""
    return tuple(task for task in KINDS if field in sections(task).own(place))


def refuse_unknown(task: str) -> None:
    """Raise unless it is a name of the table or an import path.

    Raises:
        RecipeError: neither; what there is.
    """
    if task not in KINDS and ":" not in task:
        raise RecipeError(f"task: got {short(task, 80)!r}; expected {one_of(list(KINDS))}, or package.module:Class."
                          f"{did_you_mean(task, KINDS)}")


def not_a_task(task: str) -> RecipeError:
    return RecipeError(f"task: got {task!r}, which is not a subclass of stilla.tasks.base.Task.")


@cache
def _of_table(task: str) -> Sections:
    kind = KINDS[task]
    return Sections(import_path(kind.data), import_path(kind.evaluate))


@cache
def _of_any_task() -> Sections:
    """Every field of every task, of which only the name is looked at."""
    def every(place: Place) -> dict[str, Any]:
        return {name: (Any, None) for task in KINDS for name in sections(task).own(place)}

    return Sections(create_model("Data", __base__=Data, **every("data")),
                    create_model("Evaluate", __base__=Evaluate, **every("evaluate")))


def _anything() -> Sections:
    return Sections(_AnyData, _AnyEvaluate)


class _AnyData(Data):
    model_config = ConfigDict(extra="allow")


class _AnyEvaluate(Evaluate):
    model_config = ConfigDict(extra="allow")
