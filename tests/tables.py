"""The lists in the documentation, made from the code: `python -m tests.tables` writes them, tests/test_docs.py compares.

A list stands between `<!-- name: argument -->` and `<!-- end -->`.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic.fields import FieldInfo

from stilla.cli import listing
from stilla.errors import one_of
from stilla.recipe import (
    TEXT_METRICS,
    Adapt,
    Cache,
    Completions,
    Data,
    Evaluate,
    Generate,
    Generation,
    ObjectiveSpec,
    PerClass,
    Personal,
    Reasons,
    Recipe,
    Reptile,
    Search,
    Section,
    Stage,
    StudentSpec,
    Teacher,
    Unlabelled,
    Until,
    VocabularySpec,
    Width,
)
from stilla.recipe.api import Api, Price
from stilla.recipe.fitting import Latency
from stilla.recipe.kinds import PLACES, sections
from stilla.recipe.schedule import Schedule
from stilla.recipe.yaml import flow
from stilla.tasks.retrieval.sections import Negatives
from stilla.tasks.text.sections import Contextual

ROOT = Path(__file__).parents[1]
PAGES = (ROOT / "README.md", ROOT / "README.zh-CN.md", *sorted((ROOT / "docs").glob("*.md")))
PLACE = re.compile(r"<!-- (\w+)(?:: ([\w-]+))? -->\n(.*?)<!-- end -->", re.DOTALL)

SECTIONS: Mapping[str, type[Section]] = {
    "recipe": Recipe, "data": Data, "teacher": Teacher, "student": StudentSpec, "width": Width, "vocabulary": VocabularySpec,
    "latency": Latency, "reptile": Reptile, "adapt": Adapt,
    "distill": Stage, "objectives": ObjectiveSpec, "personal": Personal, "completions": Completions, "cache": Cache,
    "evaluate": Evaluate, "generation": Generation, "saliency": Reasons, "unlabelled": Unlabelled, "generate": Generate,
    "contextual": Contextual, "search": Search, "api": Api, "price": Price, "limit": PerClass, "until": Until,
    "negatives": Negatives,
}


def filled(page: str) -> str:
    """The page with every list as the code has it."""
    return PLACE.sub(_filled, page)


def _filled(found: re.Match[str]) -> str:
    name, argument, _ = found.groups()
    lines = MAKERS[name](argument) if argument else MAKERS[name]()
    head = found.group(0).partition("\n")[0]
    return "\n".join([head, *lines, "<!-- end -->"])


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [head, ["---"] * len(head), *rows]
    return ["| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines]


def recipe_fields(section: str) -> list[str]:
    return table(("Key", "Default", "Meaning"), _rows(SECTIONS[section], tuple(SECTIONS[section].model_fields)))


def task_fields(task: str) -> list[str]:
    """What only some tasks' recipes may say, and this one's may."""
    found = sections(task)
    return table(("Key", "Default", "Meaning"), [row for place in PLACES
                                                 for row in _rows(found.at(place), found.own(place), f"{place}.")])


def _rows(model: type[Section], names: Sequence[str], before: str = "") -> list[tuple[str, str, str]]:
    schemas = model.model_json_schema()["properties"]
    return [(f"`{before}{name}`", _default(name, model.model_fields[name]),
             _meaning(model.model_fields[name], schemas[name])) for name in names]


def _meaning(field: FieldInfo, schema: Mapping[str, Any]) -> str:
    kind = field.annotation
    said = field.description or (listing.summary(kind) if isinstance(kind, type) and issubclass(kind, Section) else "")
    choices = [one for part in (schema, *schema.get("anyOf", ())) for one in part.get("enum", ())]
    allowed = f"{one_of([f'`{choice}`' for choice in choices])}. " if choices else ""
    return allowed + " ".join(said.split())


def _default(name: str, field: FieldInfo) -> str:
    if field.is_required():
        return "by the recipe's name" if name == "output" else "required"
    default = field.get_default(call_default_factory=True)
    if isinstance(default, tuple) and default and isinstance(default[0], Section):
        return "one stage"
    if isinstance(default, Section):
        return "its defaults"
    plain = default.plain() if isinstance(default, Schedule) else default
    return "" if plain is None else f"`{flow(plain)}`"


def objective_options(kind: str) -> list[str]:
    entry = next(one for one in listing.objectives() if one.name == kind)
    return table(("Option", "Takes", "Default"), [(f"`{one.name}`", one.takes, one.default) for one in entry.options])


def formats() -> list[str]:
    return table(("Format", "Is"), [(f"`{one.name}`", one.summary) for one in listing.formats()])


def metrics() -> list[str]:
    from stilla.tasks.audio.speech_exam import speech_metrics
    from stilla.tasks.audio.spoken_exam import FrameExam, spoken_metrics
    from stilla.tasks.language.token_exam import PERPLEXITY, TOKEN_ACCURACY
    from stilla.tasks.shared import metrics as _metrics
    from stilla.tasks.text.qa_exam import answer_metrics
    from stilla.tasks.text.tag_exam import entity_metrics, tag_metrics

    kinds = {"one label": _metrics.single_label, "several labels": _metrics.multi_label, "a number": _metrics.regression,
             "several numbers (`a`, `b`)": lambda: _metrics.regression(("a", "b")),
             "entities": lambda: entity_metrics(("O", "B-X", "I-X"), "iob2"),
             "a tag for every word": lambda: tag_metrics(("X",)),
             "a piece of a passage": lambda: answer_metrics(True, "en"),
             "what is said": speech_metrics,
             "how a text is spoken": lambda: (*spoken_metrics(heard=True), *FrameExam().metrics()),
             "tokens of a vocabulary": lambda: (PERPLEXITY, TOKEN_ACCURACY)}
    return table(("Task predicts", "Metrics"),
                 [(kind, ", ".join(f"`{one.name}`" for one in make())) for kind, make in kinds.items()])


HEADS = {"en": ("Task", "Learns", "Learns through", "Measured by", "A recipe", "Results"),
         "zh": ("任务", "学习什么", "通过什么学习", "用什么衡量", "配方示例", "实测结果")}
RESULTS = "benchmarks/RESULTS.md"
FIRST_LOOKS = "Boxes, masks and sounds: first looks"
MEASURED = {
    "text-classification": "The real case: all-MiniLM-L6-v2 on clinc150",
    "token-classification": "Parts of speech: all-MiniLM-L6-v2 and English sentences",
    "question-answering": "Questions on paragraphs: answers",
    "seq2seq": "A small translator, English to German",
    "image-classification": "Images: handwritten digits",
    "causal-lm": "A small language model of novels",
    "masked-lm": "Patience and rate of narrow students",
    "embedding": "Vectors of texts: questions and the paragraphs that answer them",
    "reranking": "Reranking: sentences that a first search has found",
    "several": "Several tasks at once: intents and parts of speech",
    "image-text": "Pictures and texts: flowers and their names",
    "recommendation": "Recommendation: visits to a web site",
    "speech-recognition": "Speech recognition: strings of digits",
    "object-detection": "Object detection: blood cells",
    **dict.fromkeys(("semantic-segmentation", "image-segmentation", "audio-classification", "text-to-speech",
                     "image-text-to-text"), FIRST_LOOKS),
}
"""By task the heading in RESULTS under which what was measured stands; tasks without one have no result yet."""
IN_CHINESE = {
    "text-classification": "文本或文本对：一个类别、多个标签或一个数值。",
    "token-classification": "每个词一个标签：词性或实体。",
    "question-answering": "段落中回答问题的片段，或没有答案。",
    "seq2seq": "把一段文本变成另一段：翻译、摘要、由问题得到答案。",
    "image-classification": "图片：一个类别、多个标签或一个数值。",
    "semantic-segmentation": "图片的每个像素一个类别：街道、器官、细胞、卫星图像。",
    "image-segmentation": "图片中的每个物体及其掩码与类别（实例分割），或把整张图片划分为片段（全景分割）。",
    "audio-classification": "声音：一个类别、多个标签或一个数值。",
    "speech-recognition": "声音里说了什么：逐帧给出符号或空白（CTC），或逐词写出（Whisper）。",
    "text-to-speech": "把文本读出来：声谱逐帧生成，知道何时结束（SpeechT5），或按词元时长一次生成（FastSpeech2-Conformer）。",
    "object-detection": "图片中的物体及其边框：transformers 的任何检测器。",
    "causal-lm": "下一个词元：纯文本、提示之后的补全，或助手所说的话。",
    "masked-lm": "被遮盖的词。",
    "embedding": "文本的向量，用于搜索、配对和近邻：任何编码器加池化。",
    "several": "同时学习多个任务：一个编码器，每个任务各有一个头、自己的数据、教师和指标。",
    "reranking": "一起读取查询与候选文本并给出分数：单输出的交叉编码器。",
    "image-text": "图片与文本的向量，用于零样本分类和互相检索：CLIP、SigLIP 等双塔模型。",
    "image-text-to-text": "看图说话：图片描述、关于图片的问答与对话（LLaVA、Qwen-VL、SmolVLM 等）。",
    "recommendation": "用户接下来会选什么，在全部物品中排序：以物品目录为词表的解码器（SASRec）与编码器（BERT4Rec）。",
}


def tasks(page: str) -> list[str]:
    """One row a task. page: `en` and `zh` of the two READMEs, the second of which says in its own words what a task is;
    `docs` of a page in docs."""
    rows, language = [], "zh" if page == "zh" else "en"
    for entry in listing.tasks():
        said = entry.summary if language == "en" else IN_CHINESE[entry.name]
        measures = ", ".join(f"`{name}`" for name in _measures(entry.name))
        result = _result_of(entry.name, "../" if page == "docs" else "", "结果" if page == "zh" else "measured")
        rows.append((f"`{entry.name}`", said, _code(entry.by_default, ", "), measures, _recipe_of(entry.name), result))
    return table(HEADS[language], rows)


def offered() -> list[str]:
    """What each task offers a student: the objectives that apply, and what it is exported as."""
    return table(("Task", "Learns by default through", "And, named in the recipe", "Export, beside the plain folder"),
                 [(f"`{one.name}`", _code(one.by_default, ", "), _code(one.others, ", "), _files(one.formats, one.without))
                  for one in listing.tasks()])


def _files(formats: Sequence[str], without: str) -> str:
    named = _code(formats, ", ") or "–"
    return f"{named} ({without})" if without else named


def _result_of(kind: str, above: str, word: str) -> str:
    """A link to what was measured of the task."""
    heading = MEASURED.get(kind)
    if heading is None:
        return "–"
    assert f"\n## {heading}\n" in (ROOT / RESULTS).read_text(encoding="utf-8"), f"{RESULTS} has no heading {heading!r}"
    anchor = re.sub(r"[^\w\s-]", "", heading.lower()).replace(" ", "-")
    return f"[{word}]({above}{RESULTS}#{anchor})"


def _measures(kind: str) -> list[str]:
    """The headline metric of everything that the task may have to predict, and those of texts, where its models write."""
    from stilla.tasks import find
    from stilla.tasks.audio.audio_classification import AudioClassification, SoundExam
    from stilla.tasks.audio.speech_exam import speech_metrics
    from stilla.tasks.audio.speech_recognition import SpeechRecognition
    from stilla.tasks.audio.spoken_exam import FrameExam, spoken_metrics
    from stilla.tasks.audio.text_to_speech import TextToSpeech
    from stilla.tasks.language.vocabulary import Vocabulary
    from stilla.tasks.language.writing import Writes
    from stilla.tasks.retrieval.embedding import Embedding
    from stilla.tasks.retrieval.reranking import Reranking
    from stilla.tasks.several.exam import RETENTION
    from stilla.tasks.several.several import Several
    from stilla.tasks.shared.class_exam import ClassExam
    from stilla.tasks.shared.classification import Classification
    from stilla.tasks.shared.labels import Problem
    from stilla.tasks.text.qa_exam import answer_metrics
    from stilla.tasks.text.question_answering import QuestionAnswering
    from stilla.tasks.text.tag_exam import entity_metrics, tag_metrics
    from stilla.tasks.text.token_classification import TokenClassification
    from stilla.tasks.vision.image_segmentation import ImageSegmentation
    from stilla.tasks.vision.object_task import ObjectTask
    from stilla.tasks.vision.panoptic_data import OVERLAP, THRESHOLD, Panoptic
    from stilla.tasks.vision.segmentation import SemanticSegmentation
    from stilla.tasks.vision_text.image_text import ImageText

    task = find(kind)
    if issubclass(task, Several):
        return [RETENTION]
    if issubclass(task, TokenClassification):
        return [made[0].name for made in (entity_metrics(("O", "B-X", "I-X"), "iob2"), tag_metrics(("X",)))]
    if issubclass(task, QuestionAnswering):
        return [metric.name for metric in answer_metrics(False, "en")]
    if issubclass(task, Classification):
        kind_of_exam = SoundExam if issubclass(task, AudioClassification) else ClassExam
        exams = [kind_of_exam(Problem(form, ("label",), ("a", "b")), task.show) for form in ("class", "columns", "number")]
        return [exam.metrics()[0].name for exam in exams]
    if issubclass(task, SemanticSegmentation):
        return [metric.name for metric in task(Problem("class", ())).exam().metrics()]
    if issubclass(task, SpeechRecognition):
        return [metric.name for metric in speech_metrics()]
    if issubclass(task, TextToSpeech):
        return [metric.name for metric in (*spoken_metrics(), *FrameExam().metrics())]
    if issubclass(task, Embedding | Reranking | ImageText):
        return [metric.name for metric in task().exam().metrics()]
    if issubclass(task, ObjectTask):
        problem = Problem("class", (), ("a",), ("a",))
        parted = [task(problem, panoptic=Panoptic(frozenset(), THRESHOLD, OVERLAP))] if task is ImageSegmentation else []
        return [metric.name for one in (task(problem), *parted) for metric in one.exam().metrics()]
    assert issubclass(task, Vocabulary)
    return [*(metric.name for metric in task().exam().metrics()), *(TEXT_METRICS if issubclass(task, Writes) else ())]


def _recipe_of(kind: str) -> str:
    """The first recipe of the task, by name where one is called like it; of those with a teacher here, if there is one."""
    recipes = sorted((ROOT / "recipes").glob("*.yaml"),
                     key=lambda path: (path.stem != kind, path.name.startswith("api-"), path.name))
    path = next(path for path in recipes if f"\ntask: {kind}\n" in "\n" + path.read_text(encoding="utf-8"))
    return f"`recipes/{path.name}`"


def families() -> list[str]:
    from tests.families import FAMILIES

    cuts: dict[str, list[str]] = {}
    for family in FAMILIES:
        names = " and ".join(f"`{name}`" for name in family.stacks)
        cuts.setdefault(names, []).append(family.name)
    return table(("Stacks", "Families"), [(names, ", ".join(found)) for names, found in cuts.items()])


def widths() -> list[str]:
    """By which fields of their configs the families are made narrower."""
    from tests.widths import CUTTABLE

    by_fields: dict[tuple[str, ...], list[str]] = {}
    for name, one in CUTTABLE.items():
        hidden = () if one.made_anew else one.hidden
        heads = _code(one.heads) or (f"{_code(one.bound)}, with the hidden state" if one.bound and hidden else "")
        by_fields.setdefault((_code(one.ffn) or "–", heads or "–", _code(hidden) or "–"), []).append(name)
    return table(("`ffn`", "`heads`", "`hidden`", "Families"),
                 [(*fields, ", ".join(names)) for fields, names in by_fields.items()])


def _code(names: Sequence[str], between: str = " and ") -> str:
    return between.join(f"`{name}`" for name in names)


def floors() -> list[str]:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]["contracts"]
    layers: list[str] = next(one for one in contracts if one["type"] == "layers")["layers"]
    return ["```", *(layer.replace(" | ", "  ") for layer in layers), "```"]


def trainer(part: str) -> list[str]:
    from stilla.training import options

    if part in ("handed-on", "methods"):
        names = options.HANDED_ON if part == "handed-on" else options.METHODS
        return [", ".join(f"`{name}`" for name in names) + "."]
    said: Mapping[str, Mapping[str, str]] = {
        "keywords": {**options.KEYWORDS, **{name: f"refused: {why}" for name, why in options.REFUSED_KEYWORDS.items()}},
        "ours": options.OURS, "refused": options.REFUSED, "refused-methods": options.REFUSED_METHODS}
    together: dict[str, list[str]] = {}
    for name, text in said[part].items():
        together.setdefault(text, []).append(f"`{name}`")
    head = {"keywords": "Argument", "refused-methods": "Method"}.get(part, "Field")
    return table((head, "Here" if part in ("keywords", "ours") else "Why, and what to do"),
                 [(", ".join(names), text) for text, names in together.items()])


def scaling() -> list[str]:
    from benchmarks.scaling import Machines, tables

    return ["", *tables(Machines()).splitlines(), ""]


MAKERS: Mapping[str, Callable[..., list[str]]] = {
    "scaling": scaling,
    "table": recipe_fields, "fields": task_fields, "options": objective_options, "formats": formats, "metrics": metrics,
    "families": families, "widths": widths, "floors": floors, "tasks": tasks, "offered": offered, "trainer": trainer,
}


if __name__ == "__main__":
    for path in PAGES:
        text = path.read_text(encoding="utf-8")
        if filled(text) != text:
            path.write_text(filled(text), encoding="utf-8")
            print(f"renewed {path.relative_to(ROOT)}")
