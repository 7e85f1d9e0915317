"""Reading and writing recipes: the wing `recipe/`."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from stilla.errors import RecipeError
from stilla.recipe import Data, Evaluate, Recipe, Stage, StudentSpec, Teacher, VocabularySpec
from stilla.recipe.file import draft, draft_of_options, from_options, plain_values, read
from stilla.recipe.in_words import shown
from stilla.recipe.schedule import Constant, Linear
from stilla.recipe.written import brief, dump, json_schema
from stilla.recipe.yaml import flow, load

WHOLE = """\
task: text-classification
data:
  train: reviews.parquet
  validation: {split: 0.1}
  text: sentence
  label: sentiment
teacher: {model: bert-base-uncased, train: {epochs: 3}}
student: {layers: {keep: [0, 5, 11]}}
distill:
  objectives:
    - {kind: labels, weight: 0.3}
    - {kind: logits, temperature: 2.0, weight: 0.7}
    - {kind: hidden, weight: {linear: [1.0, 0.0]}}
  epochs: 3
  learning_rate: 1e-4
  trainer: {report_to: tensorboard}
evaluate: {baseline: true, seeds: 1}
export: [onnx, int8]
"""
SMALL = {"task": "text-classification", "data": "reviews.csv", "teacher": "./bert", "student": 3}


@pytest.fixture
def write(tmp_path):
    def write(text, name="reviews.yaml"):
        file = tmp_path / name
        file.write_text(text, encoding="utf-8")
        return file

    return write


def refused(call, *arguments):
    with pytest.raises(RecipeError) as caught:
        call(*arguments)
    return str(caught.value)


def test_a_whole_recipe_reads_as_written(write):
    recipe = read(write(WHOLE))
    assert recipe.data.text == ("sentence",)
    assert recipe.data.validation.split == 0.1
    assert recipe.student.layers == {"keep": [0, 5, 11]}
    (stage,) = recipe.distill
    assert stage.learning_rate == 1e-4
    assert [one.kind for one in stage.objectives] == ["labels", "logits", "hidden"]
    assert stage.objectives[1].options == {"temperature": 2.0}
    assert stage.objectives[2].weight == Linear(1.0, 0.0)
    assert recipe.export == ("onnx", "int8")


def test_short_forms_mean_their_long_forms():
    short = from_options(SMALL)
    long = from_options({**SMALL, "data": {"train": "reviews.csv"}, "teacher": {"model": "./bert"},
                         "student": {"layers": 3}, "distill": [{}]})
    assert short == long
    assert from_options({**SMALL, "student": "./small"}).student.model == "./small"


def test_tuples_mean_lists():
    stages = ({"objectives": ({"kind": "hidden", "layer_map": (0, 1)},)}, {})
    made = from_options({**SMALL, "distill": stages, "student": {"layers": {"keep": (0, 2)}}})
    assert made.distill[0].objectives[0].options == {"layer_map": [0, 1]}
    assert made.student.layers == {"keep": [0, 2]}
    with pytest.raises(RecipeError, match=r"distill\[1\]: got \"x\"; expected keys and values"):
        from_options({**SMALL, "distill": ({}, "x")})


def test_the_run_folder_is_named_after_the_recipe_or_the_data(write):
    assert read(write(WHOLE)).output == "runs/reviews"
    assert from_options({**SMALL, "data": "./data/films.csv"}).output == "runs/films"
    assert from_options({**SMALL, "output": "here"}).output == "here"


def test_an_empty_key_means_the_default(write):
    assert read(write(WHOLE.replace("evaluate: {baseline: true, seeds: 1}", "evaluate:"))).evaluate.seeds == 1


def test_yaml_is_1_2():
    plain = load("{rate: 1e-4, word: no, time: 1:30, octal: 017}", "x")
    assert plain == {"rate": 1e-4, "word": "no", "time": "1:30", "octal": 17}


# Writing


@pytest.mark.slow
@pytest.mark.parametrize("overrides", [
    [], ["distill=[{epochs: 1, objectives: [{kind: labels}]}, {epochs: 2, warmup: 0}]"],
    ["data.label='no'", "data.text=['1e-4', 'a: b # c']", "output=ünï/\"x\""],
    ["student={config: {hidden_size: 64, id2label: {0: no, 1: 'yes'}}}", "seed=0"],
    ["distill.objectives=[{kind: hidden, layer_map: null, name: far}]"], ["student={config: {}}", "data.text=[]"],
    ["distill.trainer={optim_args: null, report_to: [a, b]}", "data.validation={name: matched}"],
])  # fmt: skip
def test_a_dumped_recipe_reads_back_equal(write, overrides):
    recipe = read(write(WHOLE), overrides)
    assert read(write(dump(recipe), "dumped.yaml")) == recipe
    assert read(write(brief(recipe), "brief.yaml")) == recipe


def test_a_dumped_recipe_writes_every_default_out_and_explains_it(write):
    text = dump(from_options(SMALL))
    for section in (Recipe, Data, Teacher, StudentSpec, Stage, Evaluate):
        for name in section.model_fields:
            assert f"{name}:" in text
    assert any(line.startswith("  warmup: 0.06                  # Fraction of the steps") for line in text.splitlines())
    assert max(map(len, text.splitlines())) <= 110


def test_a_brief_recipe_says_only_what_is_set():
    text = brief(from_options(SMALL))
    assert "#" not in text
    assert "null" not in text
    assert "warmup: 0.06" in text
    assert len(text.splitlines()) < 45


AWKWARD = ["no", "1e-4", "true", "null", "~", "", " a", "a: b", "# x", "a\nb", "üñ", "x" * 500, "[a",
           "- a", "'", '"', "=", "*a", "a\\b", "2020-01-01", "...", None, True, 1e-7, 1e22, 5,
           {"steps": [[0.0, 1.0]]}, [1, "a,b"], {}, []]


@pytest.mark.parametrize("value", AWKWARD, ids=repr)
def test_any_value_in_one_line_reads_back_equal(value):
    text = flow(value)
    assert "\n" not in text
    assert load(f"key: {text}", "x") == {"key": value}


@pytest.mark.slow
def test_the_schema_accepts_what_the_reader_accepts():
    schema = json_schema()
    json.dumps(schema)
    assert "output" not in schema["required"]
    assert {"type": ["string", "integer"]} in schema["properties"]["student"]["anyOf"]
    assert schema["$defs"]["TeacherTraining"]["properties"]["learning_rate"]["description"] == "Peak learning rate."


# Overrides


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("distill.epochs=1", lambda recipe: recipe.distill[0].epochs == 1),
        ("distill.0.epochs=1", lambda recipe: recipe.distill[0].epochs == 1),
        ("distill.learning_rate=1e-5", lambda recipe: recipe.distill[0].learning_rate == 1e-5),
        ("distill.objectives.1.temperature=4",
         lambda recipe: recipe.distill[0].objectives[1].options == {"temperature": 4}),
        ("distill.objectives[1].temperature=4",
         lambda recipe: recipe.distill[0].objectives[1].options == {"temperature": 4}),
        ("student.layers=2", lambda recipe: recipe.student.layers == 2),
        ("student=./given", lambda recipe: recipe.student.model == "./given"),
        ("data.text=[a,b]", lambda recipe: recipe.data.text == ("a", "b")),
        ("teacher.train.batch_size=8", lambda recipe: recipe.teacher.train.batch_size == 8),
        ("teacher.train=", lambda recipe: recipe.teacher.train is None),
        ("distill.trainer.report_to=none", lambda recipe: recipe.distill[0].trainer == {"report_to": "none"}),
        ("output=runs/a=b", lambda recipe: recipe.output == "runs/a=b"),
        ("evaluate.baseline=false", lambda recipe: recipe.evaluate.baseline is False),
        ("student.layers.keep=[0, 2]", lambda recipe: recipe.student.layers == {"keep": [0, 2]}),
    ],
)  # fmt: skip
def test_an_override_reaches_every_place(write, override, value):
    assert value(read(write(WHOLE), [override]))


def test_overrides_make_the_sections_that_are_missing():
    recipe = from_options(SMALL, ["distill.epochs=1", "teacher.train.epochs=2", "evaluate.seeds=3"])
    assert (recipe.distill[0].epochs, recipe.teacher.train.epochs, recipe.evaluate.seeds) == (1, 2, 3)


def test_a_later_override_wins_and_may_build_on_an_earlier_one():
    overrides = ["distill=[{epochs: 1}, {epochs: 2}]", "distill.1.epochs=5", "distill.1.epochs=6"]
    recipe = from_options(SMALL, overrides)
    assert [stage.epochs for stage in recipe.distill] == [1, 6]


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("epochs", "got 'epochs'; expected key=value"),
        ("=3", "expected key=value"),
        ("distill.epoch=3", "command line: distill.epoch: unknown key. Did you mean epochs?"),
        ("distil.epochs=1", "command line: distil: unknown key. Did you mean distill?"),
        ("distill.objectives=[{kind: labels, weight: 0}]", "distill.objectives: every weight is 0, so nothing would be"),
        ("distill.epochs=many", 'command line: distill.epochs: got "many"; expected a number'),
        ("distill.objectives.7.weight=1", "say which entry: distill.objectives.0 to distill.objectives.2"),
        ("distill.objectives.weight=1", "is a list of 3; say which entry"),
        ("teacher.train.objectives.0.kind=x", "has no entries yet; give the whole list"),
        ("data.train.name=x", 'data.train is "reviews.parquet", which has no keys'),
        ("data.text=[a,", "command line: data.text, line 1, column 4: a bracket that"),
        ("distill.3.epochs=1", "distill is a list of 1; say which entry: distill.0"),
    ],
)
def test_an_override_that_fits_nowhere_is_refused(write, override, said):
    assert said in refused(read, write(WHOLE), [override])


def test_an_override_of_several_stages_has_to_say_which():
    two = {**SMALL, "distill": [{}, {}]}
    assert "distill is a list of 2; say which entry: distill.0 to distill.1" in refused(
        from_options, two, ["distill.epochs=1"])


def test_overrides_do_not_change_the_options_they_were_given_with():
    options = {**SMALL, "distill": {"objectives": [{"kind": "labels"}]}}
    from_options(options, ["distill.objectives.0.kind=logits", "data.text=x"])
    assert options == {**SMALL, "distill": {"objectives": [{"kind": "labels"}]}}


# Errors


@pytest.mark.slow
@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("epochs: 3\n ", "epoch: 3\n ", "distill.epoch: unknown key. Did you mean epochs?"),
        ("epochs: 3\n ", "lr: 3\n ", "distill.lr: unknown key; Stilla calls it learning_rate"),
        ("epochs: 3\n ", "report_to: a\n ", "TrainingArguments go under trainer"),
        ("epochs: 3\n ", 'epochs: "3"\n ', 'distill.epochs: got "3"; expected a number (without quotes)'),
        ("epochs: 3\n ", "epochs: 0\n ", "distill.epochs: got 0; expected more than 0"),
        ("epochs: 3\n ", "epochs: .inf\n ", "distill.epochs: got Infinity; expected a finite number"),
        ("epochs: 3\n ", "precision: bf16\n ", 'expected auto, float32 or bfloat16. Did you mean bfloat16?'),
        ("epochs: 3\n ", "batch_size: 8.5\n ", "distill.batch_size: got 8.5; expected a whole number"),
        ("epochs: 3\n ", "warmup:\n ", "distill.warmup: got nothing; expected a number"),
        ("epochs: 3\n ", "group_by_length: no\n ", 'got "no"; expected true or false. Did you mean false?'),
        ("weight: 0.3", "weight: true", "objectives[0].weight: got True; expected a number or"),
        ("weight: 0.3", "weight: -1", "objectives[0].weight: got -1.0; expected 0 or more"),
        ("{kind: labels, weight: 0.3}", "labels", "expected keys and values, for example {kind: labels}"),
        ("kind: labels, ", "", "distill.objectives[0].kind: missing; expected name of the objective"),
        ("{split: 0.1}", "{split: 2}", "data.validation.split: got 2; expected less than 1"),
        ("{split: 0.1}", "{}", "data.validation: expected one of {split: fraction} or {name:"),
        ("{split: 0.1}", "[a]", 'data.validation: got ["a"]; expected a file, a folder or `{split: 0.1}`'),
        ("text: sentence", "text: 5", "data.text: got 5; expected a list"),
        ("{layers: {keep: [0, 5, 11]}}", "{layers: 3, model: ./x}", "got layers and model; expected"),
        ("keep: [0, 5, 11]", "keep: [0, five]", 'layers.keep[1]: got "five"; expected a whole number'),
        ("{layers: {keep: [0, 5, 11]}}", "{layers: three}", 'student.layers: got "three"; expected layers'),
        ("{layers: {keep: [0, 5, 11]}}", "{}", "expected exactly one of layers, config and model, or width or vocabulary"),
        ("5, 11]}", "5]}, vocabulary: date", "student.vocabulary: got 'date'; expected data, or which tokens"),
        ("5, 11]}", "5]}, vocabulary: 5000", "student.vocabulary: got 5000; expected keys and values, of data"),
        ("5, 11]}", "5]}, vocabulary: {extra: -1}", "student.vocabulary.extra: got -1; expected at least 0"),
        ("5, 11]}", "5]}, vocabulary: {extra: 5, tokens: 9}", "student.vocabulary: got tokens: 9 and extra: 5"),
        ("5, 11]}", "5]}, vocabulary: {data: false}", "student.vocabulary: got data: false and nothing else"),
        ("5, 11]}", "5]}, vocabulary: {languages: []}", "student.vocabulary.languages: got []; expected"),
        ("seeds: 1", "learning_rate: 1", "it belongs to teacher.train, student.reptile, distill, distill.adapt or"),
        ("task: text-classification", "", "task: missing; expected what the model does"),
        ("student: {layers: {keep: [0, 5, 11]}}\n", "", "given (`model`), or cut as it fits (`size`)"),
        ("export: [onnx, int8]", "7: x", "7: unknown key; expected task, data"),
    ],
)  # fmt: skip
def test_a_mistake_is_named_with_its_place_and_the_way_out(write, old, new, said):
    assert old in WHOLE
    message = refused(read, write(WHOLE.replace(old, new)))
    assert message.startswith("reviews.yaml: "), message  # one problem, with its file
    assert said in message


def test_a_task_that_there_is_not_is_named_beside_what_else_is_wrong(write):
    message = refused(read, write("task: text-clasification\ndata: {trian: reviews.csv}\nteacher: {modle: ./bert}\n"))
    assert "task: got 'text-clasification'" in message
    assert "Did you mean text-classification?" in message
    assert message.count("task: got") == 1
    assert all(said in message for said in ("data.trian: unknown key", "teacher.modle: unknown key", "student: missing"))


@pytest.mark.parametrize(("given", "overrides", "expected"), [
    ({"vocabulary": "data"}, [], {}),
    ({"layers": 2, "vocabulary": {"languages": "en"}}, [], {"languages": ("en",)}),
    ({"layers": 2, "lora": {"r": 4}, "vocabulary": "data"}, [], {}),
    ({"vocabulary": "data", "lora": {"r": 4}}, [], {}),
    ({"config": {"a": 1}, "vocabulary": {"tokens": 500}}, [], {"tokens": 500}),
    ({"layers": 2}, ["student.vocabulary=data"], {}),
    ({"layers": 2}, ["student.vocabulary.extra=10"], {"extra": 10}),
    ({"layers": 2, "vocabulary": "data"}, ["student.vocabulary.extra=10"], {"extra": 10}),
])
def test_a_vocabulary_is_short_or_long_alone_or_with_whatever_makes_a_student(given, overrides, expected, tmp_path):
    recipe = from_options({**SMALL, "student": given}, overrides)
    assert recipe.student.vocabulary == VocabularySpec(**expected)
    (tmp_path / "again.yaml").write_text(dump(recipe), encoding="utf-8")
    assert read(tmp_path / "again.yaml") == recipe


def test_all_mistakes_are_named_at_once(write):
    text = WHOLE.replace("epochs: 3\n ", "epoch: 3\n ").replace("kind: labels, ", "")
    text = text.replace("seeds: 1", "seeds: 0")
    message = refused(read, write(text), ["data.broken=skipp", "nonsense"])
    assert message.startswith("5 problems:")
    places = ("distill.epoch:", "objectives[0].kind:", "evaluate.seeds:", "line: data.broken:", "'nonsense'")
    for place in places:
        assert message.count(place) == 1


def test_a_wrong_place_in_a_list_of_stages_has_its_number(write):
    stages = {**SMALL, "distill": [{}, {"epoch": 1}]}
    assert refused(from_options, stages).startswith("recipe: distill[1].epoch: unknown key")


def test_half_a_character_is_shown_as_it_was_written(write):
    """JSON writes one beyond the first 65,536 as two halves, which YAML takes for two characters that no file can hold."""
    said = "\n".join(draft(write(WHOLE.replace("epochs: 3", '"ep\\ud83e\\udd80ochs": 3'))).problems)
    said.encode()
    assert "\\ud83e\\udd80" in said


def test_what_can_be_understood_of_a_wrong_recipe_is_kept(write):
    half = draft(write(WHOLE.replace("epochs: 3\n ", "epoch: 3\n ").replace("{split: 0.1}", "{split: 2}")))
    assert len(half.problems) == 2
    assert half.recipe.data.validation is None
    assert len(half.recipe.distill[0].objectives) == 3
    assert draft(write("task: x\n")).recipe is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("task: a\ntask: b\n", "line 2, column 1: the key task is there twice"),
        ("task: a\ndata: b: c\n", "line 2, column 8: a second ': ' in one value"),
        ("task: a\n\tdata: b\n", "line 2, column 1: a tab where YAML wants spaces"),
        ("task: [a\n", "line 1, column 7: a bracket that is never closed"),
        ("task: 'a\n", "line 1, column 7: a quotation mark that is never closed"),
        ("task: @a\n", "character '@' that cannot start any token; put quotes around the value"),
        ("task: !!python/name:os.system a\n", "a YAML tag"),
        ("task: *a\n", "put quotes around it"),
        ("a: 1\n---\na: 2\n", "a recipe is one document"),
        ("", "is empty"),
        ("just words", 'got "just words"; expected keys and values'),
    ],
)
def test_what_is_no_yaml_is_named_with_line_and_column(write, text, said):
    assert said in refused(read, write(text))


def test_a_syntax_error_shows_the_line_itself(write):
    message = refused(read, write("task: a\ndata: b: c\n"))
    assert message.splitlines()[1:] == ["    data: b: c", "           ^"]


def test_a_file_that_cannot_be_read_is_named(write, tmp_path):
    write(WHOLE, "reviews.yaml")
    assert f"Did you mean {tmp_path / 'reviews.yaml'}?" in refused(read, tmp_path / "review.yaml")
    assert "is a folder; expected a recipe" in refused(read, tmp_path)
    write(WHOLE, "recipe.yaml")
    assert f"Did you mean {tmp_path / 'recipe.yaml'}?" in refused(read, tmp_path)
    (tmp_path / "latin.yaml").write_bytes("task: größe".encode("latin-1"))
    assert "is not UTF-8 text (byte 8)" in refused(read, tmp_path / "latin.yaml")


def test_a_path_that_exists_only_beside_the_recipe_is_pointed_at(write, tmp_path, monkeypatch):
    beside = tmp_path / "recipes"
    (beside / "bert").mkdir(parents=True)
    (beside / "reviews.parquet").touch()
    file = beside / "reviews.yaml"
    file.write_text(WHOLE.replace("bert-base-uncased", "./bert"))
    monkeypatch.chdir(tmp_path)
    message = refused(read, file)
    assert "data.train: there is no reviews.parquet in the current directory" in message
    assert f"but there is one beside the recipe; write {beside / 'reviews.parquet'}" in message
    assert "teacher.model: there is no ./bert" in message
    monkeypatch.chdir(beside)
    assert read(file).teacher.model == "./bert"


def test_the_home_folder_may_be_written_as_a_tilde(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    recipe = from_options({**SMALL, "data": "~/reviews.csv", "teacher": "~/bert"})
    assert (recipe.data.train, recipe.teacher.model) == (f"{tmp_path}/reviews.csv", f"{tmp_path}/bert")


def test_a_recipe_is_frozen():
    recipe = from_options(SMALL)
    with pytest.raises(ValidationError, match="frozen"):
        recipe.seed = 1
    assert recipe.distill[0].objectives is None
    assert Constant(1.0) == from_options(
        {**SMALL, "distill": {"objectives": [{"kind": "labels"}]}}).distill[0].objectives[0].weight


@pytest.mark.slow
def test_reading_a_recipe_does_not_import_torch():
    code = "import sys, stilla.recipe.file; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_completions_have_a_short_form_and_only_the_teacher_writes() -> None:
    plain = {"task": "seq2seq", "data": "x.jsonl", "teacher": "./t", "student": 2}
    recipe = from_options({**plain, "completions": "teacher"})
    assert recipe.completions is not None
    assert recipe.completions.by == "teacher"
    assert from_options(plain).completions is None
    for writer in ("student", "mix"):
        with pytest.raises(RecipeError, match=rf"completions\.by: got '{writer}': .* do not exist yet"):
            from_options({**plain, "completions": writer})


def test_a_text_metric_that_does_not_exist_is_named() -> None:
    plain = {"task": "seq2seq", "data": "x.jsonl", "teacher": "./t", "student": 2}
    with pytest.raises(RecipeError, match=r"evaluate\.generation\.metrics: got 'blue'; .* Did you mean bleu\?"):
        from_options({**plain, "evaluate": {"generation": {"metrics": ["blue"]}}})
    with pytest.raises(RecipeError, match="the same metric twice"):
        from_options({**plain, "evaluate": {"generation": {"metrics": ["bleu", "bleu"]}}})
    kept = from_options({**plain, "evaluate": {"generation": {"metrics": "own:score"}}})
    assert kept.evaluate.generation is not None
    assert kept.evaluate.generation.metrics == ("own:score",)


def test_values_are_shown_in_short_and_by_type_where_no_file_could_hold_them() -> None:
    assert shown({"split": 0.1, "of": ["a", None, True]}) == '{"split": 0.1, "of": ["a", null, true]}'
    assert shown(None) == "nothing"
    assert shown(object()) == '"<object>"'
    assert shown({"train": [object(), 1]}) == '{"train": ["<object>", 1]}'
    for wall in ("x" * 10**6, [[object()] * 10**5] * 10**5, dict.fromkeys(range(10**4), "y" * 10**5)):
        assert len(shown(wall)) <= 63
    nested: list[object] = []
    nested.append(nested)
    assert len(shown(nested)) <= 63


def test_what_stands_in_a_file_may_be_changed_before_it_is_read(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(flow(SMALL), encoding="utf-8")
    changed = draft_of_options({**plain_values(file), "seed": "x"}, ["data.limit=2"], file)
    assert changed.recipe is not None
    assert (changed.recipe.output, changed.recipe.data.limit) == ("runs/mine", 2)
    assert changed.problems == ('mine.yaml: seed: got "x"; expected a whole number',)
