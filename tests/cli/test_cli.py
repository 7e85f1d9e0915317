import dataclasses
import errno
import gc
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from stilla.cache import DenseCoder, Entry, Manifest, TopKCoder, Writer, key_of
from stilla.cli import failures, listing, main, printing
from stilla.cli.recipes import gathered, new_data, run_at
from stilla.errors import RecipeError
from stilla.export import KINDS as FORMATS
from stilla.objectives import KINDS
from stilla.runtime import launching
from stilla.tasks import KINDS as TASKS
from stilla.tasks.offered import OFFERED
from tests import tiny
from tests.report import fakes

COMMANDS = ("run", "demo", "check", "plan", "evaluate", "export", "report", "compare", "list")
SMALL = "task: text-classification\ndata: reviews.csv\nteacher: ./bert\nstudent: 3\n"


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    """Every test works in a folder of its own, on a narrow terminal without colours."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    printing.console.cache_clear()
    yield
    printing.console.cache_clear()


@pytest.fixture
def command(capsys):
    """Runs a command in this process; gives its exit code, standard output and standard error."""

    def command(*arguments):
        with pytest.raises(SystemExit) as ended:
            main(list(map(str, arguments)))
        return ended.value.code or 0, *capsys.readouterr()

    return command


def imported_by(arguments):
    """The modules that are there after a command, in a process of its own."""
    code = (
        "import sys\nfrom stilla.cli import main\ntry:\n    main(sys.argv[1:])\nexcept SystemExit as ended:\n"
        "    print('\\n', 'ended', ended.code or 0, *sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True)
    _, exit_code, *modules = done.stdout.splitlines()[-1].split()
    return int(exit_code), set(modules)


# Starting


def test_help_imports_nothing_that_is_slow():
    exit_code, modules = imported_by(["--help"])
    assert exit_code == 0
    assert not modules & {"torch", "transformers", "datasets", "numpy", "pydantic", "rich", "ruamel.yaml"}


@pytest.mark.slow
@pytest.mark.parametrize("wrong", ["seeed: 3", "distill: {objectives: [{kind: labls}]}", "export: onx"])
def test_an_error_in_a_recipes_shape_does_not_import_torch(tmp_path, wrong):
    (tmp_path / "recipe.yaml").write_text(f"{SMALL}{wrong}\n")
    exit_code, modules = imported_by(["run", "recipe.yaml"])
    assert exit_code == 2
    assert not modules & {"torch", "transformers", "datasets", "numpy"}


@pytest.mark.slow
def test_a_check_imports_nothing_that_only_a_run_needs(tmp_path):
    (tmp_path / "recipe.yaml").write_text(json.dumps(tiny.recipe(tmp_path / "made", export=["onnx", "int8"])))
    exit_code, modules = imported_by(["check", "recipe.yaml"])
    assert exit_code == 0
    assert not modules & {"sklearn", "onnx", "onnxruntime", "onnxscript", "matplotlib", "torchvision", "scipy.stats",
                          "torch.utils.tensorboard", "transformers.trainer", "transformers.pipelines"}  # fmt: skip
    assert not modules & {f"stilla.{name}" for name in ("training.trainer", "stages.training", "run", "stages.scoring",
                                                           "report.page", "report.comparison")}


def test_garbage_is_collected_again_after_a_check(command):
    command("check", "absent.yaml")
    assert gc.isenabled()


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(command, name):
    exit_code, out, _ = command(name, "--help")
    assert exit_code == 0
    assert f"Usage: stilla {name}" in out
    assert max(map(len, out.splitlines())) <= 80


def test_a_mistyped_command_is_guessed(command):
    exit_code, _, err = command("rnu")
    assert exit_code == 2
    assert "Did you mean 'run'?" in err


def test_python_m_stilla_tells_the_versions():
    done = subprocess.run([sys.executable, "-m", "stilla", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("stilla 0.")
    assert "torch" in done.stdout


# Recipes from the command line


def test_options_alone_make_a_recipe():
    recipe = gathered(["distill.epochs=1"], "text-classification", ["./bert", "train={}"], ["layers=3"],
                      ["data/reviews.csv", "label=stars"], None).complete()  # fmt: skip
    assert (recipe.task, recipe.teacher.model, recipe.student.layers) == ("text-classification", "./bert", 3)
    assert (recipe.data.train, recipe.data.label) == ("data/reviews.csv", ("stars",))
    assert recipe.teacher.train is not None
    assert recipe.distill[0].epochs == 1
    assert recipe.output == "runs/reviews"


@pytest.mark.parametrize(
    ("given", "meant"),
    [("3", {"layers": 3}), ("./small", {"model": "./small"}), ("layers={keep: [0, 2]}", {"layers": {"keep": [0, 2]}}),
     ("keep=[0,2]", {"layers": {"keep": [0, 2]}}), ("depths=[1,1]", {"layers": {"depths": [1, 1]}})],
)
def test_a_student_may_be_a_number_a_folder_or_a_field(given, meant):
    recipe = gathered([], "t", ["./bert"], [given], ["x.csv"], None).complete()
    assert recipe.student.model_dump(exclude_unset=True) == meant


def test_a_path_with_an_equals_sign_stays_a_path():
    recipe = gathered([], "t", ["./bert"], ["3"], ["data/year=2024/part.parquet"], None).complete()
    assert recipe.data.train == "data/year=2024/part.parquet"


def test_options_go_over_a_recipe_file_and_overrides_over_options(tmp_path):
    Path("recipe.yaml").write_text(SMALL)
    recipe = gathered(["recipe.yaml", "output=there"], None, ["./other"], None, None, "here", allow_weak_teacher=True)
    assert recipe.complete().teacher.model == "./other"
    assert recipe.complete().allow_weak_teacher
    assert recipe.complete().output == "there"


def test_no_recipe_at_all_says_what_to_give(command):
    exit_code, _, err = command("run")
    assert exit_code == 2
    assert err.startswith("Error: expected a recipe file (stilla run recipe.yaml), or the essentials as options")


def test_mistakes_are_listed_without_a_traceback(command):
    Path("recipe.yaml").write_text(f"{SMALL}evaluate: {{seeds: 0}}\n")
    exit_code, out, err = command("run", "recipe.yaml", "distill.epoch=1")
    assert (exit_code, out) == (2, "")
    assert err.splitlines() == [
        "Error: 2 problems:",
        "  1. command line: distill.epoch: unknown key. Did you mean epochs?",
        "  2. recipe.yaml: evaluate.seeds: got 0; expected at least 1",
    ]


@pytest.mark.parametrize("place", [["--debug", "run"], ["run", "--debug"]])
def test_debug_shows_the_traceback_wherever_it_stands(place):
    with pytest.raises(RecipeError, match="no such file"):
        main([*place, "absent.yaml"])


# Runs that are not there


def a_run(path):
    return fakes.write_run(path, fakes.digits())


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("runs/review", "no such folder. Did you mean runs/reviews?"),
        ("reviews", "no such folder. Did you mean runs/reviews?"),
        ("runs", "is no run folder. The runs here: runs/digits, runs/reviews."),
    ],
)
def test_a_run_that_is_not_there_is_guessed(asked, said):
    a_run(Path("runs/reviews"))
    a_run(Path("runs/digits"))
    with pytest.raises(RecipeError) as caught:
        run_at(asked)
    assert str(caught.value) == f"{asked}: {said}"
    assert run_at("runs/reviews") == Path("runs/reviews")


def test_without_any_run_that_is_said(command):
    exit_code, _, err = command("report", "runs/x")
    assert exit_code == 2
    assert "no such folder. There are no runs here." in err


# How commands end


def ending(capsys, error, *, given=("run", "recipe.yaml")):
    failures.arguments.set(given)
    with pytest.raises(failures.typer.Exit) as ended, failures.explained(debug=False):
        raise error
    return ended.value.exit_code, capsys.readouterr().err


def test_a_fault_is_written_to_a_file_in_the_run_folder(capsys, tmp_path):
    failures.run_folder.set(tmp_path)
    try:
        exit_code, err = ending(capsys, ZeroDivisionError("division by zero"))
    finally:
        failures.run_folder.set(None)
    story = (tmp_path / "error.txt").read_text()
    assert exit_code == 1
    assert err.startswith("ZeroDivisionError: division by zero")
    assert str(tmp_path / "error.txt") in err
    assert story.startswith("$ stilla run recipe.yaml")
    assert "Traceback (most recent call last)" in story


def test_without_a_run_folder_a_fault_is_written_to_the_temporary_folder(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(failures.tempfile, "tempdir", str(tmp_path))
    _, err = ending(capsys, KeyError("x"))
    (file,) = tmp_path.glob("stilla-*.txt")
    assert str(file) in err


def test_stopping_tells_the_command_that_continues(capsys):
    given = ("run", "my recipe.yaml", "--overwrite", "data.text=a b")
    exit_code, err = ending(capsys, KeyboardInterrupt("stopped in `student` after step 5 of 9"), given=given)
    assert exit_code == 130
    assert err.strip() == (
        "stopped in `student` after step 5 of 9. To continue: stilla run 'my recipe.yaml' 'data.text=a b'"
    )


def test_stopping_what_cannot_be_continued_offers_nothing(capsys):
    assert ending(capsys, KeyboardInterrupt(), given=("check", "x")) == (130, "stopped\n")


@pytest.mark.parametrize(("above", "launcher"), [
    ("python /bin/accelerate launch --multi_gpu --num_processes 2 -m stilla run x", "accelerate launch --multi_gpu "
                                                                                   "--num_processes 2 -m"),
    ("python -m torch.distributed.run --nnodes 2 --rdzv_endpoint=a:1 -m stilla run x",
     "torchrun --nnodes 2 --rdzv_endpoint=a:1 -m"),
    ("/bin/torchrun --nproc_per_node 2 --no-python stilla run x", "torchrun --nproc_per_node 2 --no-python"),
    ("mpirun -n 2 stilla run x", "torchrun --nproc_per_node 2 -m"),
])
def test_under_a_launcher_the_launcher_continues(monkeypatch, above, launcher):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    monkeypatch.setattr(launching, "_lines_above", lambda: [["bash"], above.split()])
    assert failures.again(["run", "recipe.yaml"]) == f"{launcher} stilla run recipe.yaml"
    assert failures.again(["capture", "recipe.yaml", "--overwrite"]) == f"{launcher} stilla capture recipe.yaml"


@pytest.mark.parametrize("error", [
    RuntimeError("[../gloo/transport/tcp/pair.cc:553] Connection closed by peer [127.0.0.1]:59066\nsecond line"),
    torch.distributed.DistBackendError("NCCL error: remote process exited or there was a network error\nsecond line"),
])
def test_the_end_of_another_process_is_said_in_words_by_every_one_that_is_left(monkeypatch, capsys, error):
    monkeypatch.setenv("RANK", "1")
    exit_code, err = ending(capsys, error, given=("run", "x.yaml"))
    assert exit_code == 1
    assert err.startswith("another process of this run has ended")
    assert "start all of them again, each by: stilla run x.yaml" in err
    assert "second line" not in err
    assert "fault" not in err


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(28, "No space left on device", "runs/x/model.bin"), "runs/x/model.bin: no room left on its disk"),
        (MemoryError(), "out of memory. Lower batch_size"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried 1 TB"), "out of memory"),
    ],
)
def test_a_machine_that_is_too_small_is_said_in_words(capsys, error, said):
    exit_code, err = ending(capsys, error)
    assert exit_code == 2
    assert said in err


@pytest.mark.slow
def test_a_reader_that_goes_away_ends_the_command_quietly():
    shell = f"{sys.executable} -m stilla list recipe --json | head -n 1"
    done = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, check=True)
    assert done.stdout == "{\n"
    assert "Error" not in done.stderr


# Printing


@pytest.mark.slow
@pytest.mark.parametrize("scores", [fakes.intents(), fakes.digits(), fakes.regression()], ids=lambda one: one.task)
def test_a_runs_end_fits_eighty_columns_without_colours(capsys, scores):
    printing.print_scores(scores)
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 80
    assert "\x1b" not in out
    assert scores.verdict.split(";")[0][:60] in " ".join(out.split())
    for title in ("teacher", "student", "parameters", "retention"):
        assert title in out
    headline = next(line for line in out.splitlines() if line.startswith(("accuracy", "Pearson")))
    assert len(headline.split("%" if "%" in headline else ".")) > len(scores.subjects)


def test_five_models_stand_side_by_side_without_broken_intervals(capsys):
    """Teacher, baseline, student and two files: what the demo ends with."""
    printing.print_scores(fakes.intents())
    out = capsys.readouterr().out
    intervals = next(line for line in out.splitlines() if line.strip().startswith("["))
    assert intervals.count("[") == intervals.count("]") == 5


@pytest.mark.slow
def test_what_a_fact_says_is_not_said_again_as_a_note(capsys):
    why = "the teacher is no better than the baseline, so there is nothing to gain a part of"
    note = f"distillation ratio is not defined: {why}"
    scores = dataclasses.replace(fakes.intents(), ratio=None, notes=(note,))
    printing.print_scores(scores)
    assert " ".join(capsys.readouterr().out.split()).count("nothing to gain a part of") == 1


@pytest.mark.slow
def test_report_and_compare_print_where_the_page_lies(command):
    a_run(Path("runs/a"))
    a_run(Path("runs/b"))
    exit_code, out, _ = command("report", "runs/a")
    assert (exit_code, out.split()) == (0, ["report", "runs/a/report.html"])
    exit_code, out, _ = command("compare", "runs/a", "runs/b", "--output", "both.html")
    assert exit_code == 0
    assert Path("both.html").exists()
    assert "students of a and b are equal" in " ".join(out.split())  # as on the page: short, and told apart
    assert "both.html" in out


# Lists


@pytest.mark.slow
def test_objectives_describe_themselves(command):
    _, out, _ = command("list", "objectives")
    assert [line for line in out.splitlines() if line in KINDS] == list(KINDS)
    assert "divergence   forward_kl | reverse_kl | jsd | skew_kl |          forward_kl" in out
    assert "temperature  a number or a schedule" in out


def test_tasks_say_by_what_they_are_learnt_and_as_what_exported(command):
    _, out, _ = command("list", "tasks")
    whole = " ".join(out.split())
    assert ("by default: labels, logits also: dkd, dist, listwise, margins, hidden, weights, saliency export: onnx, int8"
            in whole)
    assert "by default: objects, queries also: edges, hidden, weights, maps export: onnx, int8 (int8 of YOLOS alone)" in whole
    assert listing.TaskEntry("a", "b", without="c").handed_over == "the plain folder only (c)"


def test_every_task_and_nothing_unknown_is_offered():
    assert list(OFFERED) == list(TASKS)
    for offered in OFFERED.values():
        named = [*offered.by_default, *offered.others]
        assert offered.by_default
        assert len(named) == len(set(named))
        assert set(named) <= set(KINDS)
        assert set(offered.formats) <= set(FORMATS)
        assert offered.without or set(offered.formats) == set(FORMATS)


@pytest.mark.parametrize("what", ["tasks", "objectives", "formats"])
def test_lists_come_as_json_too(command, what):
    _, out, _ = command("list", what, "--json")
    entries = json.loads(out)
    assert [entry["name"] for entry in entries] == [entry.name for entry in getattr(listing, what)()]
    assert all(entry["summary"] for entry in entries)


def test_runs_are_listed_with_their_numbers(command):
    a_run(Path("runs/digits"))
    Path("runs/begun").mkdir()
    Path("runs/begun/stages.json").write_text("{}")
    Path("runs/other").mkdir()
    _, out, _ = command("list", "runs")
    begun, digits = out.splitlines()[1:]
    assert begun.split() == ["runs/begun", "not", "finished"]
    assert digits.split()[:4] == ["runs/digits", "accuracy", "98.3", "%"]
    assert "no runs in elsewhere" in command("list", "runs", "--folder", "elsewhere")[1]


@pytest.mark.slow
def test_the_recipe_is_listed_with_every_field_and_as_a_schema(command):
    _, out, _ = command("list", "recipe")
    assert "  effort:" in out
    _, out, _ = command("list", "recipe", "--json")
    assert json.loads(out)["properties"]["task"]["description"]


@pytest.mark.slow
def test_a_recipes_fields_are_listed_by_task(command):
    _, out, _ = command("list", "recipe", "--task", "seq2seq")
    assert "  prefix: null" in out
    assert "whole_words" not in out
    _, out, _ = command("list", "recipe", "--task", "masked-lm", "--json")
    assert "MaskedLMData" in json.loads(out)["$defs"]
    exit_code, _, err = command("list", "recipe", "--task", "seq2sec")
    assert exit_code == 2
    assert "Did you mean seq2seq?" in err
    exit_code, _, err = command("list", "objectives", "--task", "seq2seq")
    assert exit_code == 2
    assert "it goes with `stilla list recipe`" in " ".join(err.split())


OWN = """\
from stilla.recipe import Data
from stilla.tasks.base import Task

class Tables(Data):
    columns: int = 1

class Tabular(Task[Tables]):
    data_section = Tables
"""


def test_a_field_of_the_data_may_be_the_tasks_own(monkeypatch, tmp_path):
    (tmp_path / "mine.py").write_text(OWN)
    (tmp_path / "recipe.yaml").write_text("{task: 'mine:Tabular', data: x.csv, teacher: ./t, student: 3}")
    monkeypatch.setattr("sys.path", [*sys.path, str(tmp_path)])
    monkeypatch.chdir(tmp_path)
    given = ["x.csv", "columns=3"]
    for arguments, task in (([], "mine:Tabular"), (["task=mine:Tabular"], None), (["recipe.yaml"], None)):
        recipe = gathered(arguments, task, ["./t"], ["3"], given, None).complete()
        assert (recipe.data.train, recipe.data.columns) == ("x.csv", 3)
    assert gathered([], "seq2seq", ["./t"], ["3"], ["columns=3/x.csv"], None).complete().data.train == "columns=3/x.csv"
    wrong = gathered([], "seq2seq", ["./t"], ["3"], ["x.csv", "image=x"], None)
    assert "data.image: a field of image-classification" in wrong.problems[0]
    assert "seq2seq takes" in wrong.problems[0]
    given = new_data(tmp_path, ["new.csv", "columns=2", "broken=skip"], trusted=True)
    assert given == ("new.csv", ["data.columns=2", "data.broken=skip"])
    sys.modules.pop("mine")


def test_an_option_says_what_it_takes():
    schema = {"anyOf": [{"type": "number"}, {"type": "object", "properties": {"linear": {}}}, {"type": "null"}]}
    assert listing.takes(schema) == "a number or a schedule"
    assert listing.takes({"enum": ["a", "b"]}) == "a | b"
    assert listing.takes({"const": "a"}) == "a"
    assert listing.takes({}) == "anything"


# The main job


def test_what_a_cache_holds_is_said_in_words(command):
    made_from = {"teacher": "7e4c", "preparation": {"text": ["sentence"], "max_length": 64, "label": None}}
    with Writer("cache", Manifest(made_from, TopKCoder(100, 2, (1.0, 2.0)), classes=100)) as writer:
        writer.add(Entry(key_of(b"one"), 1, bytes(20)))
    exit_code, out, _ = command("cache", "info", "cache")
    assert exit_code == 0
    for words in ("top_k (classes 100, k 2, temperatures 1.0 and 2.0)", "1 piece with 1 row in 1 file",
                  "max_length 64, text sentence"):
        assert words in " ".join(out.split())


def test_the_answers_to_each_of_several_tasks_are_looked_at(command):
    for name in ("topics", "words"):
        with Writer(f"run/cache/{name}", Manifest({"task": name}, DenseCoder(3, "float32"), classes=3)) as writer:
            writer.add(Entry(key_of(name.encode()), 1, bytes(12)))
    for path in ("run", "run/cache"):
        exit_code, out, _ = command("cache", "info", path)
        assert exit_code == 0
        assert "run/cache/topics" in out
        assert "run/cache/words" in out
    Path(next(Path("run/cache/words").glob("*.arrow"))).write_bytes(b"no")
    exit_code, out, _ = command("cache", "verify", "run")
    assert exit_code == 2
    assert "1 of 2 files are wrong" in out


def test_hidden_states_are_looked_at_wherever_they_lie(command):
    """Beside the answers of a run, and beside those to each of several tasks."""
    for place in ("one/cache", "one/cache/states", "both/cache/words", "both/cache/words/states"):
        with Writer(place, Manifest({"task": place}, DenseCoder(3, "float32"), classes=3)) as writer:
            writer.add(Entry(key_of(place.encode()), 1, bytes(12)))
    for path, places in (("one", 2), ("one/cache", 2), ("both", 2), ("both/cache", 2), ("both/cache/words", 2)):
        exit_code, out, _ = command("cache", "verify", path)
        assert exit_code == 0
        assert f"All {places} files are as they were written." in out


@pytest.mark.slow
def test_the_main_job_from_the_command_line(command):
    recipe = tiny.recipe(Path.cwd())
    options = ["--task", recipe["task"], "--student", "2", "--output", "runs/tiny"]
    for section in ("data", "teacher"):
        for key, value in recipe[section].items():
            options += [f"--{section}", f"{key}={json.dumps(value)}"]
    overrides = [f"{key}={json.dumps(recipe[key])}" for key in ("distill", "evaluate")]
    exit_code, out, err = command("run", *options, *overrides)
    assert exit_code == 0, err
    assert "runs/tiny/report.html" in out
    assert "labels alone" in out
    exit_code, _, err = command("run", "runs/tiny/recipe.yaml")
    assert exit_code == 0
    assert "student: finished before, skipped" in err
    exit_code, out, _ = command("evaluate", "runs/tiny", "--data", recipe["data"]["test"])
    assert exit_code == 0
    assert "accuracy" in out
    Path("gaps.csv").write_text("text,topic\nthe bread,food\n ,food\nsoup,food\n")
    exit_code, _, err = command("evaluate", "runs/tiny", "--data", "gaps.csv")
    assert exit_code == 2
    assert "data.broken: skip" in err
    exit_code, out, _ = command("evaluate", "runs/tiny", "--data", "gaps.csv", "--data", "broken=skip")
    assert exit_code == 0
    assert re.search(r"evaluations/gaps-\w{6}\.json", out)
    exit_code, out, err = command("evaluate", "runs/tiny", "--slices", "topic")
    assert exit_code == 0, err
    assert "topic: food" in out
    exit_code, out, err = command("export", "runs/tiny", "--model", "baseline")
    assert exit_code == 0, err
    assert "runs/tiny/export/baseline-onnx" in out
    assert command("export", "runs/tiny", "--model", "teacher")[0] == 2
    exit_code, out, _ = command("list", "runs")
    assert "runs/tiny" in out


@pytest.mark.parametrize("rank", ["0", "1"])
def test_the_main_process_speaks_and_the_others_wait_for_it(rank, monkeypatch, capsys):
    waited = []
    monkeypatch.setattr(failures.time, "sleep", waited.append)
    monkeypatch.setenv("RANK", rank)
    assert failures._ended("Error: no such column", failures.MISTAKE).exit_code == failures.MISTAKE
    assert capsys.readouterr().err.strip() == ("Error: no such column" if rank == "0" else "")
    assert waited == ([] if rank == "0" else [failures.PATIENCE])


# Places


@pytest.fixture
def places(tmp_path, monkeypatch):
    """Outputs that cannot be made, by name; `tmp_path` is the current folder."""
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("absent")
    (tmp_path / "recipe.yaml").write_text(SMALL)
    return {"file in the way": "file", "file above": "file/run", "link": "link", "below a link": "link/run",
            "long name": "x" * 300, "long path": "x/" * 2500, "NUL": r'"a\0b"', "empty": '""', "no user": "~nobody-here/run",
            "variable": "$HOME/run", "system": "/proc/run"}


@pytest.mark.parametrize("command_name", ["run", "check", "plan", "capture"])
@pytest.mark.parametrize("place", ["file in the way", "file above", "link", "below a link", "long name", "long path", "NUL",
                                   "empty", "no user", "variable", "system"])
def test_an_output_that_cannot_be_made_is_a_mistake_in_words(command, places, command_name, place):
    exit_code, said, wrong = command(command_name, "recipe.yaml", f"output={places[place]}")
    assert exit_code == 2
    assert "output:" in said + wrong
    assert "Traceback" not in said + wrong
    assert "fault of Stilla" not in said + wrong


def test_a_cache_that_cannot_be_made_is_a_mistake_in_words(command, places):
    exit_code, _, wrong = command("run", "recipe.yaml", "cache.path=file/cache")
    assert exit_code == 2
    assert "cache.path: " in wrong
    assert "is a file" in wrong


@pytest.mark.parametrize(("arguments", "where"), [
    (["evaluate", "~/run"], "~/run"), (["report", "~/run"], "~/run"), (["export", "~/run"], "~/run"),
    (["compare", "~/run", "~/run", "--output", "~/page.html"], "~/run"), (["cache", "info", "~/cache"], "~/cache"),
    (["run", "~/r.yaml"], "~/r.yaml"), (["list", "runs", "--folder", "~/runs"], "~/runs"),
    (["evaluate", "~nobody-here/run"], "~nobody-here"),
])  # fmt: skip
def test_a_tilde_is_the_home_folder_wherever_a_command_takes_a_path(command, monkeypatch, tmp_path, arguments, where):
    monkeypatch.setenv("HOME", str(tmp_path / "my-home"))
    monkeypatch.setenv("COLUMNS", "400")
    exit_code, said, wrong = command(*arguments)
    assert (exit_code == 2) == (arguments[0] != "list")
    assert where.replace("~/", f"{tmp_path / 'my-home'}/") in said + wrong
    assert "Traceback" not in wrong


def test_a_demo_goes_where_the_tilde_says(command, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "text.tex").touch()
    exit_code, _, wrong = command("demo", "--output", "~/thesis")
    assert exit_code == 2
    assert f"{tmp_path / 'thesis'} exists and is no run" in wrong


@pytest.mark.parametrize(("number", "said"), [
    (errno.EACCES, "you may not read or write there"), (errno.EROFS, "can only be read"), (errno.EISDIR, "it is a folder"),
    (errno.ENOTDIR, "a folder is expected there"), (errno.ENAMETOOLONG, "too long"), (errno.ELOOP, "in a circle")])
def test_what_the_system_says_of_a_place_is_no_fault_of_ours(number, said):
    words = failures._mistake(OSError(number, "said by the system", "/given/place"))
    assert words.startswith("/given/place: ")
    assert said in words
    assert failures._mistake(OSError(number, "of nothing that has a name")) is None
