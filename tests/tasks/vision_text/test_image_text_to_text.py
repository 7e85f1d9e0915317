"""What models read and learn that write about pictures; rows that answer to each other; texts; what is refused."""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from datasets import Dataset
from torch.nn import functional
from transformers import AutoProcessor

from stilla import data
from stilla.data import joined
from stilla.errors import CompatibilityError, DataError
from stilla.evaluate.generate import Decoding, generate
from stilla.evaluate.generate import writer as model_writer
from stilla.recipe import Generation, ModelSource
from stilla.rows import row_measures
from stilla.signals import Side
from stilla.tasks.base import Loaded
from stilla.tasks.forward import listen
from stilla.tasks.language.translations import CUT
from stilla.tasks.text.sequences import NO_ROW
from stilla.tasks.vision_text.caption_exam import CaptionExam
from stilla.tasks.vision_text.image_text_to_text import ImageTextToText
from stilla.tasks.vision_text.sections import ImageTextToTextData
from stilla.views import Picture
from tests.tasks.caches import _own_cache  # noqa: F401
from tests.tasks.vision_text import tellers
from tests.tasks.vision_text.setting import NAMES, picture

Ready = tuple[ImageTextToText, dict[str, Dataset], Loaded]
READABLE = ("llava", "llava_next", "idefics3", "gemma3", "qwen2_vl", "internvl")


@pytest.fixture(scope="module")
def llava(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tellers.folder(tmp_path_factory.mktemp("llava"))


@pytest.fixture(scope="module")
def captions(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tellers.captioned(tmp_path_factory.mktemp("captions") / "x.parquet", 4, each=2)


def understood(train: str, **more: Any) -> tuple[ImageTextToText, dict[str, Dataset]]:
    section = ImageTextToTextData(train=train, validation=train, **more)
    splits = data.load(section, seed=0)
    return ImageTextToText.understand(section, splits), splits


def ready(place: str, train: str, **more: Any) -> Ready:
    task, splits = understood(train, **more)
    made = task.load(ModelSource(model=place), labelled=True)
    return task.adapted_to(made), splits, made


def learnt(task: ImageTextToText, split: Dataset, made: Loaded) -> list[str]:
    """What is learnt of every example, as text."""
    prepared = task.prepare(split, made.processor, None, training=True)
    batch = prepared.collate(range(len(prepared)))
    assert batch.labels is not None
    return [task.decoded(row[row != NO_ROW].tolist()) for row in batch.labels]


def lines(place: Path, rows: list[dict[str, Any]]) -> str:
    place.parent.mkdir(exist_ok=True, parents=True)
    for number in range(4):
        (place.parent / f"{number}.png").write_bytes(picture(number))
    place.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return str(place)


# --- data ---


def test_every_caption_of_a_picture_is_learnt_with_its_end_and_the_instruction_read(llava: str, captions: str) -> None:
    task, splits, made = ready(llava, captions, instruction="What is it?")
    assert learnt(task, splits["train"], made)[:3] == ["a red square</s>", "red on grey</s>", "a green square</s>"]
    prepared = task.prepare(splits["train"], made.processor, None, training=True)
    assert prepared.keys.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert task.decoded(prepared.collate([0]).student["input_ids"][0].tolist()) == (
        "<user> " + "<image>" * 16 + "What is it?</s><assistant> a red square</s>")
    assert task.resolved(task.section).completion == "caption"  # type: ignore[arg-type]


@pytest.mark.slow
def test_questions_come_from_lines_that_name_files_beside_them(llava: str, tmp_path: Path) -> None:
    task, splits, made = ready(llava, tellers.asked(tmp_path, 4))
    assert task.layout is not None
    assert (task.layout.source, task.layout.columns) == ("questions", ("question", "answer"))
    assert learnt(task, splits["train"], made) == [f"{name}</s>" for name in NAMES]


@pytest.mark.slow
def test_conversations_have_their_pictures_where_they_say(llava: str, tmp_path: Path) -> None:
    task, splits, made = ready(llava, tellers.talked(tmp_path, 2))
    assert learnt(task, splits["train"], made) == ["red</s>yes</s>", "green and blue</s>yes</s>"]
    batch = task.prepare(splits["train"], made.processor, None, training=True).collate([1])
    assert task.decoded(batch.student["input_ids"][0].tolist()).startswith("<user> " + "<image>" * 32 + "Which?</s>")
    assert len(batch.student["pixel_values"]) == 2
    first, second = (made.processor.pixels([[task_picture(splits, 1, place)]])["pixel_values"] for place in (0, 1))
    torch.testing.assert_close(batch.student["pixel_values"], torch.cat([first, second]))
    assert task.source_of(splits["train"], 1).startswith("user: [picture] [picture] Which?\nassistant: green and blue")


def task_picture(splits: dict[str, Dataset], row: int, place: int) -> Any:
    return splits["train"][row]["images"][place].convert("RGB")


@pytest.mark.parametrize("talk", [
    [{"from": "human", "value": "<image>\nWhich?"}, {"from": "gpt", "value": "red"}],
    [{"role": "user", "content": "Which?"}, {"role": "assistant", "content": "red"}],
    [{"role": "system", "content": "Look."}, {"role": "user", "content": "Which?"}, {"role": "assistant", "content": "red"}],
], ids=["marked", "unsaid", "after a system"])
@pytest.mark.slow
def test_pictures_are_found_as_llavas_data_mark_them_or_stand_first(llava: str, tmp_path: Path, talk: Any) -> None:
    task, splits, made = ready(llava, lines(tmp_path / "x.jsonl", [{"image": "0.png", "conversations": talk}]))
    batch = task.prepare(splits["train"], made.processor, None, training=True).collate([0])
    text = task.decoded(batch.student["input_ids"][0].tolist())
    assert text.endswith("<user> " + "<image>" * 16 + "Which?</s><assistant> red</s>")


def says(content: Any) -> list[dict[str, Any]]:
    return [{"role": "user", "content": content}, {"role": "assistant", "content": "red"}]


@pytest.mark.slow
@pytest.mark.parametrize(("row", "words"), [
    ({"images": ["0.png"], "messages": says("<image><image> Which?")}, r"has 2 places for the 1 pictures beside it"),
    ({"images": ["0.png"], "messages": says([{"type": "image", "image": "0.png"}])}, r"names a picture within a message"),
    ({"images": ["0.png"], "messages": says([{"type": "video"}])}, r"has content that is no text \(video\)"),
    ({"images": [], "messages": says("Which?")}, r"1 of 2 examples have pictures that cannot be read: row 1: it has no"),
    ({"images": ["9.png"], "messages": says("Which?")}, r"cannot be read: row 1 \(.*9\.png\): there is no such file"),
    ({"images": ["0.png"], "messages": [*says("a")[:1], {"role": "assistant", "content": "<image>"}]}, "show none"),
])
def test_what_cannot_be_learnt_is_refused_by_name_or_left_out(
    llava: str, tmp_path: Path, row: dict[str, Any], words: str
) -> None:
    fine = {"images": ["1.png"], "messages": says([{"type": "image"}, {"type": "text", "text": "Which?"}])}
    place = lines(tmp_path / "x.jsonl", [fine, row])
    with pytest.raises(DataError, match=words):
        understood(place)
    task, splits, made = ready(llava, place, broken="skip")
    assert learnt(task, splits["train"], made) == ["red</s>"]


@pytest.mark.slow
def test_a_picture_that_would_take_gigabytes_is_left_out_before_it_is_decoded(tmp_path: Path, llava: str) -> None:
    place = lines(tmp_path / "x.jsonl", [{"image": "0.png", "caption": "a"}, {"image": "1.png", "caption": "b"}])
    (tmp_path / "0.png").write_bytes(_huge(tmp_path / "1.png"))
    with pytest.raises(DataError, match=r"1 of 2 examples have pictures that cannot be read: row 0 .*pixels"):
        understood(place)
    task, splits, made = ready(llava, place, broken="skip")
    assert learnt(task, splits["train"], made) == ["b</s>"]


def _huge(small: Path) -> bytes:
    """A PNG whose header says 30,000 x 30,000."""
    raw = bytearray(small.read_bytes())
    raw[16:24] = (30_000).to_bytes(4, "big") * 2
    raw[29:33] = zlib.crc32(bytes(raw[12:29])).to_bytes(4, "big")
    return bytes(raw)


@pytest.mark.parametrize(("columns", "section", "words"), [
    ({"caption": "a", "text": "b"}, {}, r"data\.completion: which column is it\? 'caption' and 'text' could be it"),
    ({"what": "a"}, {}, r"data\.completion: which column is said of the pictures\?"),
    ({"question": "a", "answer": "b"}, {"prompt": "question", "instruction": "c"}, r"data\.instruction: data\.prompt asks"),
    ({"caption": "a", "question": "b", "context": "c"}, {}, r"and 'context' left out, which may well be a part"),
    ({"messages": says("a")}, {"messages": "messages", "instruction": "c"}, r"data\.instruction: conversations ask"),
])
def test_columns_that_leave_it_open_are_asked_for(
    tmp_path: Path, columns: dict[str, Any], section: dict[str, Any], words: str
) -> None:
    with pytest.raises(DataError, match=words):
        understood(lines(tmp_path / "x.jsonl", [{"image": "0.png", **columns}]), **section)


@pytest.mark.slow
def test_unlabelled_pictures_are_asked_about_and_their_answers_stand_beside_the_datas(
    llava: str, captions: str, tmp_path: Path
) -> None:
    task, splits, made = ready(llava, captions)
    pool = data.sources.read(lines(tmp_path / "x.jsonl", [{"photo": f"{one}.png"} for one in range(3)]), document="picture")
    whole = joined(task.beside(splits["train"]), task.usable(task.unlabelled(pool["train"], {})))
    asked = task.asked(whole, made.processor)
    assert asked.keys.tolist() == list(range(7))
    assert list(asked.references)[3:] == ["a grey square", "", "", ""]
    free = whole.select(range(4, 7))
    told = task.answered(free, ["one", "two", "three"], [False, True, False])
    assert learnt(task, told, made) == ["one</s>", "two", "three</s>"]
    assert told[CUT] == [False, True, False]
    with pytest.raises(DataError, match="which column is 'image'"):
        task.unlabelled(Dataset.from_dict({"words": ["a"]}), {})


@pytest.mark.slow
def test_conversations_that_nobody_has_answered_are_asked(llava: str, tmp_path: Path) -> None:
    task, splits, made = ready(llava, tellers.talked(tmp_path / "a", 2))
    row = {"images": ["0.png"], "messages": [{"role": "user", "content": "<image> Which?"}]}
    pool = data.sources.read(lines(tmp_path / "b" / "x.jsonl", [row]), document="picture")["train"]
    whole = joined(task.beside(splits["train"]), task.usable(task.unlabelled(pool, {})))
    asked = task.asked(whole, made.processor)
    assert asked.keys.tolist() == [0, 1, 2]
    assert task.source_of(whole, 2) == "user: [picture]  Which?"
    told = task.answered(whole.select([2]), ["blue"], [False])
    assert learnt(task, told, made) == ["blue</s>"]


# --- rows ---


@pytest.mark.slow
@pytest.mark.parametrize("family", READABLE)
def test_inputs_are_what_the_familys_own_processor_makes(tmp_path: Path, captions: str, family: str) -> None:
    task, splits, made = ready(tellers.folder(tmp_path, family), captions)
    batch = task.prepare(splits["train"], made.processor, None, training=True).collate([0])
    talk = [{"role": "user", "content": [{"type": "image"}]},
            {"role": "assistant", "content": [{"type": "text", "text": "a red square"}]}]
    whole = made.processor.whole
    text = whole.apply_chat_template(talk, tokenize=False)
    own = whole(images=[[splits["train"][0]["image"].convert("RGB")]], text=[text], return_tensors="pt",
                add_special_tokens=False)
    told = {name for name in own if name in batch.student}
    assert {"input_ids", "attention_mask", "pixel_values"} <= told
    assert set(batch.student) <= set(own)
    for name in told:
        torch.testing.assert_close(batch.student[name], own[name])


@pytest.mark.slow
@pytest.mark.parametrize("family", READABLE)
def test_padding_and_other_pictures_have_no_influence(tmp_path: Path, captions: str, family: str) -> None:
    task, splits, made = ready(tellers.folder(tmp_path, family), captions)
    collate = task.prepare(splits["train"], made.processor, None, training=True).collate
    with torch.no_grad():
        alone, beside = (listen(made.model, task, collate(some), Side.STUDENT) for some in ([5], [5, 2, 1]))
        other = listen(made.model, task, collate([1]), Side.STUDENT)
    assert alone.labels is not None
    rows = len(alone.labels)
    torch.testing.assert_close(alone.logits.hidden, beside.logits.hidden[:rows], atol=2e-5, rtol=1e-4)  # type: ignore[union-attr]
    torch.testing.assert_close(other.logits.hidden, beside.logits.hidden[-len(other.labels):],  # type: ignore[union-attr,arg-type]
                               atol=2e-5, rtol=1e-4)


@pytest.mark.slow
def test_a_teacher_with_four_times_the_tokens_of_a_picture_answers_for_the_same_rows(tmp_path: Path, captions: str) -> None:
    task, splits, teacher = ready(tellers.folder(tmp_path / "t", size=64), captions, instruction="What?")
    student = task.load(ModelSource(model=tellers.folder(tmp_path / "s", size=32, seed=1)), labelled=True)
    task = task.between(student, teacher)
    prepared = task.prepare(splits["train"], student.processor, teacher.processor, training=True)
    assert not prepared.aligned
    batch = prepared.collate([0, 3])
    ids = {side: batch[side.value]["input_ids"] for side in Side}
    picture_ = student.processor.tokenizer.convert_tokens_to_ids("<image>")
    assert [(ids[side] == picture_).sum(1).tolist() for side in Side] == [[16, 16], [64, 64]]
    with torch.no_grad():
        models = {Side.STUDENT: student, Side.TEACHER: teacher}
        said = {side: listen(one.model, task, batch, side) for side, one in models.items()}
        ours, theirs = task.align(said[Side.STUDENT], said[Side.TEACHER], batch)
        found = row_measures(ours.logits, ours.labels, theirs.logits)  # type: ignore[arg-type]
        by_hand = {Side.STUDENT: [], Side.TEACHER: []}  # type: dict[Side, list[torch.Tensor]]
        for side, one in models.items():
            logits = one.model(**batch[side.value])["logits"][..., : task.classes].log_softmax(-1)
            for row, text in enumerate(("a red square</s>", "green on grey</s>")):
                wanted = student.processor.tokenizer(text, add_special_tokens=False).input_ids
                end = int((ids[side][row] != 0).sum())
                assert ids[side][row, end - len(wanted) : end].tolist() == wanted
                by_hand[side].append(logits[row, end - len(wanted) - 1 : end - 1])
    student_, teacher_ = (torch.cat(by_hand[side]) for side in (Side.STUDENT, Side.TEACHER))
    assert len(student_) == task.counts(batch)["rows"] == len(found.nll)
    expected = functional.kl_div(student_, teacher_, log_target=True, reduction="none").sum(-1)
    assert found.kl is not None
    torch.testing.assert_close(found.kl.float(), expected, atol=1e-4, rtol=1e-4)


def test_equal_content_is_found_again_and_another_picture_is_other_content(llava: str, captions: str) -> None:
    task, splits, made = ready(llava, captions)
    collate = task.prepare(splits["train"], made.processor, made.processor, training=True).collate
    alone, beside = task.segments(collate([2])), task.segments(collate([1, 2]))
    assert alone[0].content == beside[1].content
    assert (beside[1].rows.start, beside[1].rows.stop - beside[1].rows.start) == (beside[0].rows.stop, 15)
    told = task.answered(splits["train"].select([0, 1]), ["same", "same"], [False, False])
    same = task.segments(task.prepare(told, made.processor, made.processor, training=True).collate([0, 1]))
    assert same[0].content != same[1].content


@pytest.mark.slow
def test_what_would_cut_a_picture_is_left_out_and_longer_answers_are_cut_alike(
    tmp_path: Path, llava: str, captions: str, caplog: pytest.LogCaptureFixture
) -> None:
    task, splits, made = ready(llava, captions, max_length=44)
    assert learnt(task, splits["train"], made)[:2] == ["a red square</s>"[:8], "red on grey"[:8]]
    assert "8 of 8 examples are longer than 44 tokens: cut at the end" in caplog.text
    short, _ = understood(captions, max_length=20)
    with pytest.raises(DataError, match=r"within 20 tokens there is not all of their pictures.*; raise data\.max_length, or"):
        short.adapted_to(made).prepare(splits["train"], made.processor, None, training=True)
    other = task.load(ModelSource(model=tellers.folder(tmp_path / "s", size=16, seed=1)), labelled=True)
    both = task.between(other, made).prepare(splits["train"], other.processor, made.processor, training=True).collate([0])
    assert both.labels is not None
    assert task.decoded(both.labels[0].tolist()) == "a red square</s>"[:8]


@pytest.mark.slow
@pytest.mark.parametrize(("section", "student", "teacher", "who", "alone"), [
    (20, 512, 512, r"raise data\.max_length, or", r"raise data\.max_length, or"),
    (None, 512, 20, "the teacher reads no more: make pictures smaller", "a model reads no more: make pictures smaller"),
    (512, 20, 512, "the student reads no more", r"raise data\.max_length, or"),
    (30, 20, 20, "a model reads no more", "a model reads no more"),
])
def test_who_has_no_room_for_pictures_is_named(
    llava: str, captions: str, section: int | None, student: int, teacher: int, who: str, alone: str
) -> None:
    """`data.max_length` is for both: where a model itself reads no more, raising it changes nothing."""
    task, splits, made = ready(llava, captions, max_length=section)
    other = task.load(ModelSource(model=llava), labelled=True)
    for one, length in ((other, student), (made, teacher)):
        one.processor.tokenizer.model_max_length = length
    with pytest.raises(DataError, match=rf"within 20 tokens there is not all of their pictures.*; {who}"):
        task.prepare(splits["train"], other.processor, made.processor, training=True)
    if min(section or 512, teacher) <= 20:
        with pytest.raises(DataError, match=rf"leaves room for an answer within 20 tokens; {alone}"):
            task.asked(splits["train"], made.processor)


# --- writing ---


def test_what_was_written_is_measured_at_the_tokens_that_were_written(llava: str, captions: str) -> None:
    task, splits, made = ready(llava, captions, instruction="What?")
    asked = task.asked(splits["train"], made.processor)
    inputs = asked.tokens.batch([0, 1])
    written = model_writer(made.model)(inputs, {}, Decoding(5))
    batch = task.continued(made.processor, inputs, [one.ids for one in written])
    with torch.no_grad():
        said = listen(made.model, task, batch, Side.TEACHER)
        likeliest = said.logits.head.logits(said.logits.hidden).argmax(-1)  # type: ignore[union-attr]
    assert likeliest.tolist() == [token for one in written for token in one.ids]
    assert said.labels is not None
    assert said.labels.tolist() == likeliest.tolist()


@pytest.mark.slow
def test_texts_are_the_same_alone_and_beside_longer_questions(llava: str, tmp_path: Path) -> None:
    rows = [{"image": f"{one}.png", "question": "Which?" * (1 + 3 * one), "answer": "a"} for one in range(3)]
    task, splits, made = ready(llava, lines(tmp_path / "x.jsonl", rows))
    asked = task.asked(splits["train"], made.processor)
    many, one = (generate(made.model, task, asked, made.processor, Decoding(6), batch_size=size) for size in (3, 1))
    assert many.answers.given == one.answers.given


@pytest.mark.slow
def test_a_report_shows_the_picture_with_both_captions(llava: str, captions: str) -> None:
    task, splits, made = ready(llava, captions)
    asked = task.asked(splits["train"], made.processor)
    texts = generate(made.model, task, asked, made.processor, Decoding(4))
    exam = task.written_exam(Generation(metrics=("rougeL",)))
    assert isinstance(exam, CaptionExam)
    assert list(asked.references) == [f"a {name} square" for name in NAMES]
    decided = exam.decisions(texts.answers)
    assert decided.references.tolist() == [f"a {name} square" for name in NAMES]
    shown = exam.view(splits["train"], {"teacher": texts.answers}, 2, 0)
    assert isinstance(shown, Picture)
    assert shown.uri.startswith("data:image/png;base64,")


# --- what is refused ---


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:__array__ implementation")  # PaliGemma's processor
def test_a_prefix_that_is_read_both_ways_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CompatibilityError, match=r"sees the tokens that it has to predict"):
        ImageTextToText().load(ModelSource(model=tellers.folder(tmp_path, "paligemma")), labelled=True)


@pytest.mark.slow
def test_templates_without_a_place_or_with_other_answers_are_refused(tmp_path: Path, llava: str, captions: str) -> None:
    task, splits, made = ready(llava, captions)
    blind = task.load(ModelSource(model=tellers.folder(tmp_path / "a")), labelled=True)
    blind.processor.tokenizer.chat_template = tellers.template("")
    with pytest.raises(CompatibilityError, match=r"writes 0 places '<image>' for the 1 pictures of conversation 0"):
        task.prepare(splits["train"], blind.processor, None, training=True)
    other = task.load(ModelSource(model=tellers.folder(tmp_path / "b")), labelled=True)
    other.processor.tokenizer.chat_template = tellers.template("<image>").replace("</s>", " </s>")
    with pytest.raises(CompatibilityError, match=r"their chat templates write answers otherwise"):
        task.prepare(splits["train"], other.processor, made.processor, training=True)


@pytest.mark.slow
@pytest.mark.parametrize("chat", [True, False])
def test_a_picture_token_in_an_answer_is_no_picture(tmp_path: Path, chat: bool) -> None:
    place = tellers.folder(tmp_path / "m", chat=chat)
    rows = lines(tmp_path / "x.jsonl", [{"image": "0.png", "caption": "an <image>"}, {"image": "1.png", "caption": "a"}])
    task, splits, made = ready(place, rows)
    with pytest.raises(DataError, match=r"text of row 0 itself" if chat else r"text of row 0 has a token in it that stands"):
        task.prepare(splits["train"], made.processor, None, training=True)
    task, splits, made = ready(place, rows, broken="skip")
    assert learnt(task, splits["train"], made) == ["a</s>"]


@pytest.mark.slow
def test_without_a_template_a_question_is_read_as_it_stands_and_conversations_are_refused(
    tmp_path: Path, captions: str
) -> None:
    place = tellers.folder(tmp_path / "plain", chat=False)
    task, splits, made = ready(place, captions, instruction="\nSay: ")
    batch = task.prepare(splits["train"], made.processor, None, training=True).collate([0])
    assert task.decoded(batch.student["input_ids"][0].tolist()) == "<image>" * 16 + "\nSay: a red square</s>"
    task, splits, made = ready(place, tellers.talked(tmp_path / "t", 2))
    with pytest.raises(CompatibilityError, match=r"has no chat template, and conversation 0 is more than a question"):
        task.prepare(splits["train"], made.processor, None, training=True)


@pytest.mark.slow
def test_other_tokens_and_a_smaller_vocabulary_are_refused_by_name(
    tmp_path: Path, llava: str, captions: str
) -> None:
    task, splits, made = ready(llava, captions)
    other = task.load(ModelSource(model=tellers.folder(tmp_path / "q", "qwen2_vl")), labelled=True)
    assert not task.comparable(other.processor, made.processor)
    with pytest.raises(CompatibilityError, match="Tokens are compared one by one"):
        task.prepare(splits["train"], other.processor, made.processor, training=True)
    with pytest.raises(CompatibilityError, match=r"student\.vocabulary: models of `image-text-to-text`"):
        task.texts(splits["train"], made.processor)


@pytest.mark.slow
def test_a_processor_of_another_size_is_refused(tmp_path: Path) -> None:
    place, other = tellers.folder(tmp_path / "a"), tellers.folder(tmp_path / "b", "llava", size=48)
    with pytest.raises(CompatibilityError, match="does not take what its processor makes of a picture"):
        ImageTextToText().load(ModelSource(model=place, processor=other), labelled=True)


# --- the folder ---


@pytest.mark.slow
def test_a_folder_loads_with_transformers_alone_and_keeps_what_it_says_of_videos(tmp_path: Path, llava: str) -> None:
    made = ImageTextToText().load(ModelSource(model=llava), labelled=True)
    made.processor.save_pretrained(tmp_path / "again")
    plain = AutoProcessor.from_pretrained(tmp_path / "again")
    seen = datasets.Image().decode_example({"bytes": picture(1), "path": None})
    read = plain(images=[seen], text="<image>a", return_tensors="pt")
    assert (read["input_ids"] == plain.tokenizer.convert_tokens_to_ids("<image>")).sum() == 16
    torch.testing.assert_close(read["pixel_values"], made.processor.pixels([[seen]])["pixel_values"])
    assert plain.chat_template == tellers.template("<image>")
    place = Path(tellers.folder(tmp_path / "qwen", "qwen2_vl"))
    said = json.loads((place / "processor_config.json").read_text(encoding="utf-8"))
    videos = {"video_processor_type": "Qwen2VLVideoProcessor", "fps": 3}
    (place / "processor_config.json").write_text(json.dumps({**said, "video_processor": videos}), encoding="utf-8")
    other = ImageTextToText().load(ModelSource(model=str(place)), labelled=True)
    other.processor.save_pretrained(tmp_path / "other")
    kept = json.loads((tmp_path / "other" / "processor_config.json").read_text(encoding="utf-8"))
    assert (kept["processor_class"], kept["video_processor"]) == ("Qwen2VLProcessor", videos)
    assert ImageTextToText().load(ModelSource(model=str(place), processor=str(tmp_path / "other")),
                                  labelled=True).processor.reads_alike(other.processor)
    assert np.array_equal(other.processor.marks(np.array([0, other.processor.numbers[0]], np.int32)), [0, 1])
