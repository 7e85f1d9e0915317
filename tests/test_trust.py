"""Somebody else's run folder is data: whatever is done with it, none of its code runs unless a person says so."""

import json
import shutil
from pathlib import Path

import pytest
import safetensors.torch
import torch

import stilla
from stilla.after import evaluate_run, export_run, report_run
from stilla.check import check, refuse_wrong_names
from stilla.check.found import Found
from stilla.check.places import look_at_code
from stilla.cli import main
from stilla.cli.recipes import new_data
from stilla.errors import CompatibilityError, StillaError, TrustError
from stilla.objectives.labels import Labels as Mine  # noqa: F401
from stilla.recipe import ModelSource
from stilla.recipe.file import from_options, read
from stilla.runtime import imports
from stilla.tasks.shared.loading import read_config
from tests import tiny
from tests.recipe.test_code import WITH_CODE
from tests.report import fakes
from tests.tasks.language.test_talks import CHATML, assistant, shown, user

GIVEN = {"task": "text-classification", "data": "x.csv", "teacher": "./bert", "student": 3}
EACH = {
    "task": {"task": "evil:Task"},
    "teacher.model": {"teacher": "evil:f"},
    "student.model": {"student": "evil:f"},
    "objective": {"distill": {"objectives": [{"kind": "evil:Objective"}]}},
    "metric": {"evaluate": {"generation": {"metrics": ["evil:f"]}}},
    "completions.keep": {"completions": {"by": "teacher", "keep": "evil:f"}},
    "trust in the teacher": {"teacher": {"model": "./bert", "trust_remote_code": True}},
    "trust in the student": {"student": {"model": "./bert", "trust_remote_code": True}},
    "everything": WITH_CODE,
}


@pytest.fixture
def theirs(tmp_path):
    """A finished run of somebody else, with this recipe."""

    def theirs(recipe):
        folder = fakes.write_run(tmp_path / "theirs", fakes.intents())
        (folder / "recipe.yaml").write_text(json.dumps({**GIVEN, **recipe, "output": "runs/theirs"}))
        (folder / "stages.json").write_text("{}")
        (folder / "student").mkdir()
        return folder

    return theirs


@pytest.mark.parametrize("recipe", EACH.values(), ids=EACH)
def test_evaluating_and_exporting_a_run_runs_none_of_its_code(theirs, recipe, evil, tmp_path):
    folder = theirs(recipe)
    (tmp_path / "new.csv").write_text("text,label\na,b\n")
    for use in (lambda: evaluate_run(folder), lambda: evaluate_run(folder, str(tmp_path / "new.csv"), "data.broken=skip"),
                lambda: export_run(folder, ["onnx"])):
        with pytest.raises(TrustError) as caught:
            use()
        assert "names code that would run here: " in str(caught.value)
        assert "If the run is yours, or you trust whoever made it, say so: --trust-remote-code" in str(caught.value)
    assert not evil()


def test_nothing_is_imported_from_where_a_run_says_that_it_began(theirs, tmp_path, monkeypatch):
    """Libraries look for packages that need not be there, and would find them in a folder that somebody else chose."""
    monkeypatch.setattr(imports, "_places", [])
    folder = theirs({})
    places = {"started in": str(tmp_path / "evil-modules"), "run folder": str(folder)}
    (folder / "environment.json").write_text(json.dumps({"places": places}))
    with pytest.raises(StillaError, match=r"x\.csv"):
        evaluate_run(folder)
    assert imports._places == []
    (folder / "recipe.yaml").write_text(json.dumps({**GIVEN, "task": "evil:Task", "output": "runs/theirs"}))
    with pytest.raises(StillaError):
        evaluate_run(folder, trust_remote_code=True)
    assert imports._places == [places["started in"]]


def test_a_persons_trust_lets_the_code_run(theirs, evil):
    folder = theirs({"task": "evil:Task"})
    with pytest.raises(StillaError, match=r"x\.csv"):  # its data are not here
        evaluate_run(folder, trust_remote_code=True)
    assert evil()


@pytest.mark.slow
def test_commands_run_no_code_of_a_run(theirs, evil, monkeypatch, tmp_path, capsys):
    folder = theirs(WITH_CODE)
    other = shutil.copytree(folder, tmp_path / "other")
    monkeypatch.chdir(tmp_path)
    for arguments, code in ((["evaluate", folder], 2), (["evaluate", folder, "--data", "new.csv", "--data", "columns=2"], 2),
                            (["export", folder], 2), (["report", folder], 0), (["compare", folder, other], 0),
                            (["list", "runs", "--folder", tmp_path], 0)):
        with pytest.raises(SystemExit) as ended:
            main([*map(str, arguments)])
        assert (ended.value.code or 0) == code, arguments
    assert not evil()
    assert "--trust-remote-code" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["evaluate", str(folder), "--trust-remote-code"])
    assert evil()


def test_fields_of_a_runs_own_task_are_asked_for_only_where_it_is_trusted(theirs, evil):
    folder = theirs({"task": "evil:Task"})
    assert new_data(folder, ["new.csv", "broken=skip"]) == ("new.csv", ["data.broken=skip"])
    assert not evil()
    new_data(folder, ["new.csv"], trusted=True)
    assert evil()


def test_a_report_and_a_comparison_show_the_recipe_as_text(theirs, evil):
    folder = theirs(WITH_CODE)
    assert "evil:metric" in report_run(folder).read_text()
    assert not evil()


def test_the_recipe_in_an_output_folder_has_no_say(theirs, evil):
    """A run, and a check, look at what lies where they would write."""
    folder = theirs({"task": "evil:Task"})
    recipe = from_options({**GIVEN, "output": str(folder)})
    refuse_wrong_names(recipe)
    notes = check(recipe).notes
    assert not evil()
    assert any("recipe.yaml names code that would run here: task: evil:Task" in note for note in notes)


def test_ones_own_code_in_ones_own_output_folder_is_no_difference(theirs):
    own = {**GIVEN, "student": "tests.tasks.own_models:Bag"}
    folder = theirs(own)
    notes = check(from_options({**own, "output": str(folder)})).notes
    assert not any("names code" in note for note in notes)
    assert any(note.startswith("code: this recipe runs code: student.model: tests.tasks.own_models:Bag.") for note in notes)


def test_a_check_says_what_of_a_recipe_is_code():
    found = Found([])
    look_at_code(from_options({**GIVEN, "student": "mine:student"}), found)
    assert found.notes == ["code: this recipe runs code: student.model: mine:student. Use it only if you trust who wrote it"]
    found = Found([])
    look_at_code(from_options(GIVEN), found)
    assert found.notes == []


@pytest.mark.parametrize("key", ["attn_implementation", "_attn_implementation"])
def test_a_model_folder_fetches_no_code_for_its_attention(tmp_path, key):
    folder = Path(tiny.bert(tmp_path / "bert"))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, key: "somebody/kernel"}))
    with pytest.raises(CompatibilityError, match="asks for 'somebody/kernel' as its implementation, which is code"):
        read_config(ModelSource(model=str(folder)))
    assert read_config(ModelSource(model=str(folder), trust_remote_code=True)).hidden_size == 32


def test_a_model_folder_runs_no_code_of_its_own(tmp_path, evil):
    folder = Path(tiny.bert(tmp_path / "bert"))
    config = json.loads((folder / "config.json").read_text())
    places = {"AutoConfig": "mine.Config", "AutoModelForSequenceClassification": "mine.Model"}
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "mine", "auto_map": places}))
    (folder / "mine.py").write_text("import evil\n")
    with pytest.raises(CompatibilityError, match="comes with code of its own, which is not run unless you say so"):
        read_config(ModelSource(model=str(folder)))
    assert not evil()


REFUSED = ["{{ ''.__class__.__mro__[1].__subclasses__() }}", "{{ cycler.__init__.__globals__.os.system('x') }}",
           "{% set _ = messages.append(messages) %}", "{{ namespace.__init__.__globals__ }}", "{% include '/etc/passwd' %}",
           "{% import 'os' as os %}{{ os.system('x') }}"]
UNSEEN = ["{{ messages.__class__ }}", "{{ raise_exception.__globals__ }}", "{{ ('%s' | format('')).format.__self__ }}",
          "{{ messages | map(attribute='__class__') | list | first }}"]
TALK = [user("hi"), assistant("yes")]


@pytest.mark.parametrize("template", REFUSED)
def test_a_chat_template_that_reaches_for_python_or_files_is_refused(template):
    with pytest.raises(StillaError, match="the chat template"):
        shown(TALK, template=template + CHATML)


@pytest.mark.parametrize("template", UNSEEN)
def test_a_chat_template_sees_nothing_of_python(template):
    assert shown(TALK, template=template + CHATML).whole == shown(TALK).whole


@pytest.mark.slow
def test_a_run_with_ones_own_objective_is_scored_again_with_trust_alone(tmp_path):
    options = tiny.recipe(tmp_path)
    options["distill"] = {**options["distill"], "objectives": [{"kind": "tests.test_trust:Mine"}]}
    run = stilla.distill(**options)
    before = safetensors.torch.load_file(run.student / "model.safetensors")
    with pytest.raises(TrustError, match=r"distill\.objectives\[0\]\.kind: tests\.test_trust:Mine"):
        evaluate_run(run.folder)
    scores = evaluate_run(run.folder, trust_remote_code=True)
    assert scores.student["accuracy"] == run.scores.student["accuracy"]
    assert all(torch.equal(one, before[name])
               for name, one in safetensors.torch.load_file(run.student / "model.safetensors").items())
    assert read(run.folder / "recipe.yaml").distill[0].objectives[0].kind == "tests.test_trust:Mine"
