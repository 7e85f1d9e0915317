"""The demos' data, teacher and recipe. That their students are good is for whole runs to show."""

import pytest

from stilla.check import refuse_known_problems
from stilla.cli.recipes import demo_recipe
from stilla.errors import RecipeError
from stilla.recipe.file import read
from stilla.samples.demo import DEMOS, prepare
from stilla.stages.starting import start_student
from stilla.tasks import find


@pytest.fixture(scope="module", params=DEMOS)
def prepared(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("demos") / request.param
    return prepare(request.param, folder), folder


@pytest.mark.slow
def test_a_demos_recipe_is_an_ordinary_one(prepared):
    file, folder = prepared
    recipe = read(file)
    assert recipe.output == str(folder)
    assert recipe.evaluate.baseline
    assert recipe.export == ("onnx", "int8")
    refuse_known_problems(recipe)


@pytest.mark.slow
def test_a_demos_student_is_several_times_smaller(prepared):
    from stilla import data

    file, _ = prepared
    recipe = read(file)
    task = find(recipe.task).understand(recipe.data, data.load(recipe.data, seed=0))
    teacher = task.load(recipe.teacher, labelled=False)
    student, _ = start_student(recipe.student, task, teacher)
    sizes = [sum(one.numel() for one in model.parameters()) for model in (teacher.model, student.model)]
    # a language model that is deeper learns too slowly for minutes, and its embeddings stay
    assert sizes[0] >= (2 if recipe.task == "causal-lm" else 4) * sizes[1]


@pytest.mark.slow
def test_an_edited_demo_is_kept(prepared):
    file, folder = prepared
    before = file.read_text()
    file.write_text(before.replace("baseline: true", "baseline: false"))
    try:
        assert not read(prepare("digits", folder)).evaluate.baseline
    finally:
        file.write_text(before)


@pytest.mark.slow
def test_a_demo_takes_fields_of_its_recipe(prepared):
    _, folder = prepared
    assert demo_recipe([folder.name, "distill.epochs=1"], str(folder)).distill[0].epochs == 1


def test_an_unknown_demo_is_guessed(tmp_path):
    with pytest.raises(RecipeError, match="Did you mean digits"):
        demo_recipe(["digit"], str(tmp_path))


def test_a_demo_touches_no_folder_with_something_else_in_it(tmp_path):
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(RecipeError, match="is no run of Stilla"):
        demo_recipe([], str(tmp_path))
    assert [one.name for one in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.slow
def test_a_demo_without_the_packages_for_exporting_leaves_export_out(prepared, monkeypatch, capfd):
    _, folder = prepared
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert demo_recipe([folder.name], str(folder)).export == ()
    assert 'pip install "stilla[onnx]"' in capfd.readouterr().err


@pytest.mark.slow
def test_the_student_has_few_labels_and_the_teacher_all(prepared):
    from stilla import data

    file, _ = prepared
    recipe = read(file)
    splits = data.load(recipe.data, seed=0, teachers=recipe.teacher.own_data)
    (pool,) = data.load_unlabelled(recipe.data, seed=recipe.seed).values()
    own, everything = splits["train"], splits[data.TEACHER]
    assert len(own) + len(pool) == len(everything) > 5 * len(own)
    column = "image" if recipe.task == "image-classification" else "text"

    def contents(split):
        values = split.data.column(column) if split._indices is None else split.flatten_indices().data.column(column)
        return sorted(str(value) for value in values.to_pylist())

    assert sorted(contents(own) + contents(pool)) == contents(everything)
