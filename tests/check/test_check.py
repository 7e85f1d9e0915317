import json
import shutil
from collections import namedtuple
from pathlib import Path

import pytest
import torch

from stilla.check import check, check_draft, refuse_known_problems, unknown_names
from stilla.check import estimate as estimates
from stilla.check.estimate.passes import Line, _line, _typical, measure
from stilla.check.found import Found
from stilla.errors import CompatibilityError, DataError, RecipeError
from stilla.recipe import Training
from stilla.recipe.file import draft_of_options, from_options
from stilla.run import distill
from stilla.tasks import find
from stilla.tasks.base import Prepared, Side
from tests import tiny


@pytest.fixture(scope="module")
def options(tmp_path_factory):
    return tiny.recipe(tmp_path_factory.mktemp("check"))


@pytest.fixture
def recipe(options, tmp_path):
    """The tiny recipe with overrides, its run folder in a place of this test."""
    return lambda *overrides: from_options({**options, "output": str(tmp_path / "run")}, overrides)


@pytest.fixture
def found(recipe):
    return lambda *overrides: check(recipe(*overrides))


def test_names_in_no_table_are_told_in_the_first_round_where_the_recipe_cannot_be_understood():
    """A student is missing, so that there is no recipe to go on with; a mistyped objective is no news of a second check."""
    plain = {"task": "text-classification", "data": {"train": "a.csv"}, "teacher": {"mode": "m"}, "export": ["onx"],
             "distill": [{"objectives": [{"kind": "labels"}, {"kind": "logit"}, {"kind": "own.losses:Mine"}, {"kind": 3}]}],
             "personal": {"by": "user", "objectives": [{"kind": "labls"}]}}
    draft = draft_of_options(plain)
    assert draft.recipe is None
    said = [one.split("; expected")[0] for one in check_draft(draft).problems]
    for problem in ("distill.objectives[1].kind: got 'logit'", "personal.objectives[0].kind: got 'labls'",
                    "export: got 'onx'"):
        assert said.count(problem) == 1, said
    assert not [one for one in said if "own.losses" in one]
    two = check_draft(draft_of_options({**plain, "distill": [{}, {"objectives": [{"kind": "logit"}]}]})).problems
    assert [one for one in two if one.startswith("distill[1].objectives[0].kind: got 'logit'")]


def only(findings):
    """The only problem."""
    (problem,) = findings.problems
    return problem


def test_a_problem_is_placed_once_whatever_part_found_it():
    found = Found([])
    said = ("model: got 1", "data.pack: no positions", "distill.0.objectives: none", "./bert gives 3 outputs", "teacher: no")
    for problem in said:
        with found.attempt("teacher"):
            raise CompatibilityError(problem)
    assert found.problems == ["teacher.model: got 1", *said[1:3], "teacher: ./bert gives 3 outputs", said[4]]


@pytest.mark.slow
def test_a_good_recipe_has_no_problems_and_says_what_was_chosen(found):
    findings = found()
    assert findings.problems == ()
    notes = "\n".join(findings.notes)
    assert "data: 120 train, 40 validation, 60 test examples" in notes
    assert "labels: 3: food, music, sport" in notes
    assert "distill.objectives: none are named; chosen: labels" in notes
    assert "the same student is trained once more, on labels alone" in notes
    assert list(findings.estimate.seconds) == ["teacher", "student", "baseline", "evaluation"]
    assert 0 < findings.estimate.total.low < findings.estimate.total.high


@pytest.mark.slow
def test_checking_leaves_no_trace_in_the_run_folder(found, tmp_path):
    found()
    assert not (tmp_path / "run").exists()


def test_problems_of_every_kind_are_named_at_once(options, tmp_path):
    overrides = ["distill.epoch=3", "distill.objectives=[{kind: labls}, {kind: logits, temprature: 2}]",
                 "distill.trainer={optim: adamx}", "data.label=topc", "teacher.model=./absent", "export=[onx]"]  # fmt: skip
    problems = check_draft(draft_of_options({**options, "output": str(tmp_path)}, overrides)).problems
    for place in ("command line: distill.epoch: unknown key", "distill.objectives[0].kind: got 'labls'",
                  "distill.objectives[1].temprature: unknown option", "distill.trainer.optim: got \"adamx\"",
                  "data.label: got 'topc'", "teacher.model: './absent': no such folder", "export: got 'onx'"):  # fmt: skip
        assert sum(problem.startswith(place) for problem in problems) == 1, place
    assert len(problems) == 7


def test_an_option_of_another_type_is_named_as_a_field_is(options):
    overrides = ["distill.objectives=[{kind: labels, label_smoothing: true}]"]
    problems = check_draft(draft_of_options(options, overrides)).problems
    assert problems == ("distill.objectives[0].label_smoothing: got true; expected a number",)


def test_a_recipe_that_cannot_be_understood_still_has_its_problems_named():
    findings = check_draft(draft_of_options({"task": 3}))
    assert len(findings.problems) == 4
    assert findings.estimate is None


@pytest.mark.slow
@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("student.layers=9", "got 9; expected 1 to 4"),
        ("student={config: {hidden_sise: 8}}", "Did you mean hidden_size?"),
        ("distill.objectives=[{kind: logits, temperature: -1}]", "distill.objectives[0].temperature: got -1"),
        ("distill.objectives=[{kind: logits, divergence: kl}]", "distill.objectives[0].divergence: got 'kl'"),
        ("data.text=topik", "data.text: got 'topik'"),
        ("data.train=absent.csv", "data.train: 'absent.csv': no such file"),
        ("teacher.train.trainer={seed: 3}", "teacher.train.trainer.seed: the recipe says it by a key of its own: seed"),
        ("task=text-clasification", "Did you mean text-classification?"),
        ("distill.compile=true", "distill.compile: speeds up losses over a vocabulary, and this task has none"),
        ("evaluate.slices=topics", "evaluate.slices: there is no column 'topics'; expected text or topic. Did you"),
        ("evaluate.slices=text", "expected a column that tells groups apart"),
        ("data.shifted=absent.csv", "data.shifted.absent: 'absent.csv': no such file"),
        ("evaluate.metric=acuracy", "evaluate.metric: got 'acuracy'"),
        ("distill.trainer={load_best_model_at_end: true, metric_for_best_model: f1}", "got \"f1\"; expected accuracy"),
        ("distill.trainer={load_best_model_at_end: true, save_strategy: 'no'}", "distill.trainer: --load_best_model_at_end"),
    ],
)
def test_one_mistake_is_one_problem(found, override, said):
    assert said in only(found(override))


@pytest.mark.slow
def test_a_divergence_of_distributions_is_refused_for_numbers(found, tmp_path):
    lines = [json.dumps({"text": f"soup {index % 7}", "score": index % 7 / 2}) for index in range(60)]
    (tmp_path / "scores.jsonl").write_text("\n".join(lines))
    teacher = tiny.bert(tmp_path / "one", labels=1)
    overrides = [f"data={tmp_path / 'scores.jsonl'}", f"teacher.model={teacher}"]
    problem = only(found(*overrides, "distill.objectives=[{kind: labels}, {kind: logits}]"))
    assert problem.startswith("distill.objectives[1] (logits): ")
    assert "divergence: mse" in problem
    assert found(*overrides).problems == ()  # what is chosen by default fits


@pytest.mark.slow
def test_two_terms_of_one_name_are_known_before_a_run(found):
    problem = only(found("distill.objectives=[{kind: hidden, pooling: first}, {kind: hidden, pooling: mean}]"))
    assert problem == "distill.objectives: two are called 'hidden'; give one a `name`"
    named = "distill.objectives=[{kind: hidden, pooling: first, name: first}, {kind: hidden, pooling: mean}]"
    assert found(named).problems == ()


@pytest.mark.slow
def test_position_by_position_is_refused_with_two_tokenizers(found, tmp_path):
    student = tiny.bert(tmp_path / "student", layers=2)
    words = json.loads((tmp_path / "student" / "tokenizer.json").read_text())
    words["model"]["vocab"] = {word: index for index, word in enumerate(reversed(words["model"]["vocab"]))}
    for token in words["added_tokens"]:
        token["id"] = words["model"]["vocab"][token["content"]]
    for token in words["post_processor"]["special_tokens"].values():
        token["ids"] = [words["model"]["vocab"][name] for name in token["tokens"]]
    (tmp_path / "student" / "tokenizer.json").write_text(json.dumps(words))
    problem = only(found(f"student={student}", "distill.objectives=[{kind: hidden}]"))
    assert "cut the examples differently" in problem
    assert "pooling: mean" in problem
    pooled = (f"student={student}", "distill.objectives=[{kind: hidden, pooling: mean}, {kind: labels}]")
    assert found(*pooled).problems == ()
    findings = found(f"student={student}")
    assert findings.problems == ()
    assert not any("hidden" in note for note in findings.notes if "chosen" in note)


def test_a_teacher_without_weights_is_refused(found, tmp_path):
    teacher = Path(tiny.bert(tmp_path / "bert"))
    (teacher / "model.safetensors").unlink()
    assert only(found(f"teacher.model={teacher}")).startswith(f"teacher.model: '{teacher}' holds no weights")


def test_a_teacher_that_has_to_be_downloaded_is_left_to_the_run(found):
    findings = found("teacher=nobody/has-this-model")
    assert findings.problems == ()
    assert any("nobody/has-this-model is not on this machine" in note for note in findings.notes)
    assert findings.estimate is None


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["bfloat16", "int8"])
def test_a_teacher_in_lower_precision_is_measured_too(found, precision):
    findings = found("teacher.train=", f"teacher.precision={precision}")
    assert findings.problems == ()
    assert list(findings.estimate.seconds) == ["student", "baseline", "evaluation"]


@pytest.mark.slow
def test_texts_that_are_left_out_are_noted(found, tmp_path, options):
    file = tmp_path / "holes.jsonl"
    lines = Path(options["data"]["train"]).read_text().splitlines()
    file.write_text("\n".join([*lines, json.dumps({"text": "", "topic": "food"})]))
    findings = found(f"data.train={file}", "data.broken=skip")
    assert findings.problems == ()
    assert any("left out" in note for note in findings.notes)


# The run folder


@pytest.mark.slow
def test_a_folder_with_something_else_in_it_is_refused(found, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.tex").touch()
    assert "is no run of Stilla" in only(found())
    shutil.rmtree(tmp_path / "run")
    (tmp_path / "run").touch()
    assert "is a file" in only(found())


@pytest.mark.slow
def test_what_an_earlier_run_left_is_noted(recipe, tmp_path):
    from stilla.recipe.written import dump

    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "stages.json").write_text("{}")
    resolved = recipe("distill.objectives=[{kind: labels}]", "data.augment=light")
    (tmp_path / "run" / "recipe.yaml").write_text(dump(resolved))
    assert any("holds a run of this recipe" in note for note in check(recipe()).notes)
    (tmp_path / "run" / "recipe.yaml").write_text(dump(recipe("distill.objectives=[{kind: labels}]", "data.augment=light",
                                                              "student.layers={keep: [0]}", "data.label_weights={}")))
    asked = recipe("student.layers=1", "student.layers_by=lowest", "data.label_weights=balanced")
    assert any("holds a run of this recipe" in note for note in check(asked).notes)
    (tmp_path / "run" / "recipe.yaml").write_text(dump(resolved))
    changed = [note for note in check(recipe("distill.warmup=0.5")).notes if "another recipe" in note]
    assert changed[0].endswith(": distill.warmup: 0.06 -> 0.5")
    other = [note for note in check(recipe("distill.objectives=[{kind: labels, label_smoothing: 0.1}]")).notes
             if "another recipe" in note]
    assert other[0].endswith(": distill.objectives[0].label_smoothing: nothing -> 0.1")


# Before a run


@pytest.mark.slow
def test_a_run_refuses_what_is_known_at_once(recipe):
    with pytest.raises(RecipeError, match="2 problems"):
        refuse_known_problems(recipe("student.layers=9", "distill.trainer={optim: adamx}"))
    refuse_known_problems(recipe())


def test_from_python_a_run_refuses_the_same_at_once(options, tmp_path):
    wrong = {**options, "student": {"layers": 9}, "evaluate": {"metric": "acuracy"}, "output": str(tmp_path / "run")}
    with pytest.raises(RecipeError, match=r"(?s)2 problems.*evaluate.metric: got 'acuracy'.*got 9; expected 1 to 4"):
        distill(**wrong)
    assert not (tmp_path / "run").exists()


def test_what_is_of_one_kind_is_raised_as_that_kind(recipe, tmp_path):
    with pytest.raises(CompatibilityError, match="got 9"):
        refuse_known_problems(recipe("student.layers=9"))
    with pytest.raises(DataError, match=r"data.text: got 'topik'"):
        refuse_known_problems(recipe("data.text=topik"))


def test_own_tasks_and_objectives_need_not_be_in_the_tables(recipe):
    assert unknown_names(recipe("task=my.module:Task", "distill.objectives=[{kind: 'my.module:Loss'}]")) == []


# The estimate


@pytest.mark.slow
def test_an_estimate_grows_with_what_is_asked(found):
    once, twice = found("evaluate.seeds=1").estimate, found("evaluate.seeds=2").estimate
    assert twice.disk > once.disk
    assert "baseline" not in found("evaluate.baseline=false").estimate.seconds
    lines = dict(once.lines())
    assert set(lines) == {"time", "memory", "disk"}
    assert "student" in lines["time"]


@pytest.mark.slow
def test_too_little_room_is_a_problem_and_too_little_memory_a_note(found, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(estimates.shutil, "disk_usage", lambda path: usage(10, 5, 5))
    monkeypatch.setattr(estimates, "_memory_left", lambda device: 1e6)
    findings = found()
    assert "make room" in only(findings)
    assert any("a smaller batch_size" in note for note in findings.notes)


def test_a_pass_over_more_examples_shares_what_every_pass_costs():
    line = _line(3.0, 6.0, few=2, many=8)
    assert line == Line(per_pass=2.0, per_example=0.5)
    assert line(8, batch_size=1) == 8 * 2.5
    assert line(8, batch_size=8) == 2 + 4
    assert _line(3.0, 2.0, few=2, many=8) == Line(0.0, 0.25)  # disturbed
    assert _line(3.0, 3.0, few=1, many=1) == Line(0.0, 3.0)


@pytest.fixture
def started(options):
    """A task, its model before training, and its training examples, prepared."""
    from stilla import data

    recipe = from_options(options)
    splits = data.load(recipe.data, seed=0)
    task = find(recipe.task).understand(recipe.data, splits)
    loaded = task.load(recipe.teacher, labelled=False)
    prepared: Prepared = task.prepare(splits["train"], loaded.processor, None, training=True)
    return task, loaded, prepared


@pytest.mark.slow
def test_measuring_leaves_the_model_as_it_was(started):
    """Except for its mode: the weights, what is trainable and where it lies stay."""
    task, loaded, prepared = started
    loaded.model.requires_grad_(False)
    before = {name: value.clone() for name, value in loaded.model.state_dict().items()}
    passes = measure(task, loaded.model, prepared, Side.STUDENT, Training(precision="float32"), train=True)
    assert passes.forward.per_example > 0
    assert passes.kept > 0
    assert all(torch.equal(value, before[name]) for name, value in loaded.model.state_dict().items())
    assert not any(parameter.requires_grad or parameter.grad is not None for parameter in loaded.model.parameters())


@pytest.mark.slow
def test_a_pass_is_measured_in_the_mode_and_precision_that_a_run_makes_it_in(started):
    task, loaded, prepared = started
    seen = set()
    loaded.model.register_forward_pre_hook(
        lambda model, inputs: seen.add((model.training, torch.is_autocast_enabled("cpu"), torch.is_grad_enabled()))
    )
    measure(task, loaded.model, prepared, Side.STUDENT, Training(precision="bfloat16"), train=True)
    helping, scoring, training = (False, True, False), (False, False, False), (True, True, True)
    assert seen == {helping, scoring, training}


def test_a_typical_batch_is_of_the_mean_length(started):
    """Few long texts take as much as many short ones: the median would not see them."""
    _, _, prepared = started
    lengths = [8 if index % 4 else 40 for index in range(len(prepared))]
    skewed = Prepared(range(len(prepared)), lambda examples: [lengths[one] for one in examples], prepared.keys, lengths)
    assert set(_typical(skewed, 8)) == {8, 40}
    assert len(_typical(skewed, len(prepared))) == len(prepared)


def test_examples_are_taken_from_all_over_the_data(found, options, tmp_path):
    from stilla.data import from_all_over, load_one

    file = tmp_path / "long.jsonl"
    file.write_text("\n".join(json.dumps({"text": "soup", "number": number}) for number in range(1000)))
    taken = from_all_over(load_one(str(file)), 256)["number"]
    assert len(taken) == 256
    assert min(taken) < 4
    assert max(taken) > 995
    assert len(from_all_over(load_one(options["data"]["test"]), 256)) == 60


def test_packages_that_a_format_needs_are_missed_before_training(recipe, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name.startswith("onnx") else object())
    with pytest.raises(RecipeError, match=r"export: onnx and int8 need onnx, onnxruntime and onnxscript, which are not "):
        refuse_known_problems(recipe("export=[onnx, int8]"))


@pytest.mark.slow
def test_random_weights_with_few_steps_are_noted(found):
    def noted(*overrides):
        return [note for note in found(*overrides).notes if "random weights learn slowly" in note]

    anew = "student={config: {num_hidden_layers: 1}}"
    (few,) = noted(anew, "distill.learning_rate=1e-3")
    assert "This recipe has 3 epochs at a learning rate of 0.001" in few
    assert noted(anew, "distill.epochs=20", "distill.learning_rate=5e-5")
    assert not noted(anew, "distill.epochs=20", "distill.learning_rate=1e-3")
    assert not noted("distill.learning_rate=5e-5")
