"""No password and no token is written or shown, wherever it came from."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from stilla.check import check_draft
from stilla.cli import main
from stilla.errors import RecipeError, all_at_once
from stilla.recipe import Recipe
from stilla.recipe.file import draft_of_options, from_options
from stilla.run import run
from stilla.runtime.environment import describe
from stilla.secrets import places_of_secrets, without_secrets
from stilla.stages.folder import RunFolder
from tests import tiny

SECRET = "geheim-9Qx"
TOKEN = "hf_AbCdEfGhIjKlMnOpQrStUvWx"

SHOWN = [
    (f"https://ann:{SECRET}@host/x.csv?a=b", "https://***@host/x.csv?a=b"),
    (f"https://{SECRET}@host/x", "https://***@host/x"),
    (f"git+https://{SECRET}@host/x", "git+https://***@host/x"),
    ("s3://key:se/cr+et@bucket/x", "s3://***@bucket/x"),
    ("https://ann:p@ss@host/x", "https://***@host/x"),
    ("'https://ann:p%40ss@host:80'", "'https://***@host:80'"),
    (f"ann:{SECRET}@host/x", "***@host/x"),
    (f"two: http://a:{SECRET}@b http://c:{SECRET}@d", "two: http://***@b http://***@d"),
    (f"Bearer {SECRET}", "Bearer ***"), (f"token={SECRET}", "token=***"), (f"--hub-token={SECRET} x", "--hub-token=*** x"),
    (f"https://host/x?X-Amz-Signature={SECRET}&b=1", "https://host/x?X-Amz-Signature=***&b=1"),
    (f'{{"api_key": "{SECRET}"}}', '{"api_key": "***"}'),
    (TOKEN, "***"), (f"./{TOKEN}/x", "./***/x"), ("ghp_abcdefghijklmnopqrstuvwx", "***"), ("AKIAIOSFODNN7EXAMPLE", "***"),
]
HARMLESS = [
    "https://host/x.csv", "abfs://data@account.dfs.core.windows.net/x", "sftp://ann@host/x", "ssh://git@host/x",
    "http://localhost:8000/v1", "http://localhost:8000/a@b", "./hf_datasets/x.csv", "org/name", "C:/x", "mailto:ann@host",
    "module.sub:name", "max_new_tokens=64", "token=3", "pad_token='[PAD]'", "perplexity per token: 12.3", "secretary: yes",
    "a tokenizer=./bert", "10:30@noon", "ratio 3:4 @ night", "token_accuracy = 0.4", "***", "https://***@host/x",
]


@pytest.fixture(autouse=True)
def _bare(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HF_TOKEN", "HF_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(("text", "clean"), SHOWN)
def test_secrets_are_cut_out_of_texts(text: str, clean: str) -> None:
    assert without_secrets(text) == clean
    assert without_secrets(clean) == clean


@pytest.mark.parametrize("text", HARMLESS)
def test_what_is_no_secret_stays(text: str) -> None:
    assert without_secrets(text) == text


def test_what_the_environment_keeps_secret_is_cut_out_wherever_it_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_API_KEY", "plain words")
    monkeypatch.setenv("HTTPS_PROXY", "http://ann:geheim%21@proxy:80")
    monkeypatch.setenv("SHORT_TOKEN", "it")
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false as ever")
    assert without_secrets("plain words, geheim%21, it, false as ever") == "***, ***, it, false as ever"


@pytest.mark.parametrize("plain", [
    {"a": f"https://x:{SECRET}@y"}, {"hub_token": "anything"}, {"api-key": "x"}, {"password": "x"}, {"token": "x"},
    {"client_secret": "x"}, {"aws_secret_access_key": "x"}, {"a": [{"b": TOKEN}]}, {"AUTH_TOKEN": "x"},
])
def test_secrets_are_found_by_name_and_by_look(plain: Mapping[str, Any]) -> None:
    assert len(list(places_of_secrets(plain))) == 1


@pytest.mark.parametrize("plain", [
    {"pad_token": "[PAD]", "bos_token": "<s>", "pad_token_id": 0, "tokenizer": "bert", "token": None, "password": ""},
    {"max_new_tokens": 5, "token_type": "x", "metric": "token_accuracy", "key": "x"},
])
def test_names_of_models_and_data_are_no_secrets(plain: Mapping[str, Any]) -> None:
    assert list(places_of_secrets(plain)) == []


def small(**changes: Any) -> dict[str, Any]:
    return {"task": "text-classification", "data": "t.csv", "teacher": "bert", "student": 3, "output": "run", **changes}


PLACES: list[tuple[str, dict[str, Any]]] = [
    ("data.train", {"data": f"https://ann:{SECRET}@host/t.csv"}),
    ("data.test", {"data": {"train": "t.csv", "test": f"https://{SECRET}@host/t.csv"}}),
    ("teacher.model", {"teacher": f"https://ann:{SECRET}@host/bert"}),
    ("teacher.model", {"teacher": TOKEN}),
    ("student.processor", {"student": {"model": "x", "processor": f"ann:{SECRET}@host"}}),
    ("output", {"output": f"s3://ann:{SECRET}@bucket/run"}),
    ("cache.path", {"cache": {"path": f"s3://ann:{SECRET}@bucket/cache"}}),
    ("student.config.auth_token", {"student": {"config": {"auth_token": SECRET}}}),
    ("distill.trainer.hub_token", {"distill": {"trainer": {"hub_token": SECRET}}}),
    ("distill.trainer.run_name", {"distill": {"trainer": {"run_name": f"https://ann:{SECRET}@host"}}}),
    ("distill.objectives[0].api_key", {"distill": {"objectives": [{"kind": "labels", "api_key": SECRET}]}}),
    ("password", {"password": SECRET}),
]


@pytest.mark.parametrize(("place", "change"), PLACES)
def test_a_recipe_with_a_secret_is_refused_without_showing_it(place: str, change: dict[str, Any]) -> None:
    with pytest.raises(RecipeError) as refused:
        from_options(small(**change))
    said = "\n".join([str(refused.value), *refused.value.problems])
    assert f"recipe: {place}: a password or token stands here" in said
    assert "HF_TOKEN" in said
    assert SECRET not in said
    assert TOKEN not in said
    findings = check_draft(draft_of_options(small(**change)))
    assert SECRET not in "".join([*findings.problems, *findings.notes])


def test_a_good_recipe_has_none() -> None:
    recipe = from_options(small(student={"config": {"pad_token": "[PAD]"}}, distill={"objectives": [{"kind": "logits"}]}))
    assert list(places_of_secrets(recipe.model_dump(mode="python"))) == []


def test_a_recipe_made_in_python_is_refused_too(tmp_path: Path) -> None:
    recipe = Recipe.model_validate(small(teacher=f"https://ann:{SECRET}@host/bert", output=str(tmp_path / "run")))
    with pytest.raises(RecipeError, match=r"teacher\.model: a password or token stands here") as refused:
        run(recipe)
    assert SECRET not in str(refused.value)
    assert not (tmp_path / "run").exists()


def test_errors_do_not_hold_secrets() -> None:
    error = all_at_once([f"a: https://ann:{SECRET}@b", f"c: token={SECRET}"], RecipeError)
    assert SECRET not in str(error) + "".join(error.problems) + repr(error)


@pytest.mark.parametrize("arguments", [
    ["evaluate", "run", "--data", f"https://ann:{SECRET}@host/x.csv"], ["cache", "info", f"s3://ann:{SECRET}@bucket"],
    ["run", f"https://ann:{SECRET}@host/recipe.yaml"], ["report", f"https://ann:{SECRET}@host/run"],
    ["run", "--task", "t", "--data", f"https://ann:{SECRET}@host", "--teacher", "b", "--student", "3"],
    ["check", "--task", "t", "--data", "d", "--teacher", "b", "--student", "3", f"distill.trainer.hub_token={SECRET}"],
    ["run", "absent.yaml", f"nonsense token={SECRET}"], ["list", "runs", "--folder", f"ann:{SECRET}@host"],
])
def test_no_command_shows_a_secret(arguments: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path,
                                   monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run").mkdir()
    (tmp_path / "run/stages.json").write_text("{}")
    with pytest.raises(SystemExit):
        main(arguments)
    assert SECRET not in "".join(capsys.readouterr())
    for file in tmp_path.rglob("*"):
        assert SECRET not in file.name


def test_the_command_is_written_down_without_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["train.py", "--token", f"--token={SECRET}", f"https://a:{SECRET}@b"])
    assert SECRET not in json.dumps(describe(1))


def test_whatever_a_run_folder_is_given_is_written_without_secrets(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.open(overwrite=False)
    folder.begin("student", {"model": f"https://ann:{SECRET}@host"})
    folder.append_log({"note": f"token={SECRET}"})
    folder.write(folder.recipe, f"https://ann:{SECRET}@host")
    assert SECRET not in "".join(file.read_text() for file in tmp_path.iterdir())
    assert folder.fits("student", {"model": f"https://ann:{SECRET}@host"}) is False


LIBRARIES = f"""
import sys, logging, warnings
sys.argv = ["stilla", *sys.argv[1:]]
import stilla.cli.app as app
def chats():
    logging.getLogger("any.library").warning("cannot reach %s", "https://ann:{SECRET}@host")
    warnings.warn("token={SECRET}")
    raise ValueError("https://ann:{SECRET}@host")
app.app.command("chat")(chats)
from stilla.cli import program
program()
"""


@pytest.mark.slow
@pytest.mark.parametrize("debug", [[], ["--debug"]])
def test_what_libraries_say_is_shown_without_secrets(tmp_path: Path, debug: list[str]) -> None:
    done = subprocess.run([sys.executable, "-c", LIBRARIES, "chat", *debug], capture_output=True, text=True, check=False,
                          cwd=tmp_path, env={**os.environ, "TMPDIR": str(tmp_path)})
    assert done.returncode == 1
    assert "cannot reach https://***@host" in done.stderr
    assert "ValueError: https://***@host" in done.stderr
    told = "".join(file.read_text() for file in tmp_path.glob("stilla-*.txt"))
    assert ("ValueError: https://***@host" in told) == (not debug)
    assert SECRET not in done.stderr + told


def test_a_logger_keeps_what_has_no_secret() -> None:
    record = logging.getLogger("x").makeRecord("x", logging.INFO, "f", 1, "%s and %s", ("a", 2), None)
    assert (record.msg, record.args) == ("%s and %s", ("a", 2))


@pytest.mark.slow
def test_no_file_of_a_run_holds_a_secret_of_the_environment(tmp_path: Path) -> None:
    """The address of a hub with a password, a token, a proxy; and a run that fails."""
    plain = tiny.recipe(tmp_path, distill={"max_steps": 2, "precision": "float32"}, allow_weak_teacher=True,
                        teacher={"model": tiny.bert(tmp_path / "bert")}, cache={"form": "dense"},
                        evaluate={"speed": False, "resamples": 100})
    plain["data"]["augment"] = "none"
    (tmp_path / "recipe.yaml").write_text(json.dumps(plain))
    environment = {**os.environ, "HF_TOKEN": TOKEN, "HF_ENDPOINT": f"https://ann:{SECRET}@localhost:1",
                   "OMP_NUM_THREADS": "1", "HTTPS_PROXY": f"http://ann:{SECRET}@localhost:1", "HF_HUB_OFFLINE": "1"}
    good, bad = (subprocess.run([sys.executable, "-m", "stilla", "run", "recipe.yaml", *more], cwd=tmp_path, check=False,
                                capture_output=True, text=True, env=environment)
                 for more in ([], ["teacher=org/absent", f"output={tmp_path / 'other'}"]))
    assert good.returncode == 0, good.stderr
    assert bad.returncode == 2
    files = [file for file in (*(tmp_path / "run").rglob("*"), *(tmp_path / "other").rglob("*")) if file.is_file()]
    assert len(files) > 10
    for text in (good.stdout, good.stderr, bad.stdout, bad.stderr, *(file.read_bytes().decode("latin-1") for file in files)):
        assert SECRET not in text
        assert TOKEN not in text
