"""Few labels of a new task, and starts that have seen other tasks: Reptile, all at once, or none.

    python -m benchmarks.meta --data CLINC150
    python -m benchmarks.meta --data CLINC150 --targets travel work --seeds 3
    python -m benchmarks.meta --data SIB200 --family languages --targets spa_Latn

domains: the 150 intents of CLINC150 belong to ten domains of 15. languages: SIB-200's seven topics, in ten languages. One of
them is the new task, of which the student sees a few labels of each class; the others are the tasks before. The student has
the first layers of all-MiniLM-L6-v2. Its starts:

- plain: as it is;
- joint: trained on all other tasks at once, for as many optimiser steps of as many texts as Reptile's. Topics are the same in
  every language, so that there its head knows them already;
- reptile: by `student.reptile`, over the other tasks.

From each it learns from the few labels alone, and from them with a teacher beside (all-MiniLM-L6-v2, trained on all labels of
the new task, asked about the same few texts). All three are the same recipe but for the start.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from datasets import Dataset
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from benchmarks.inputs import add_data_option, clinc150, data_set, minilm
from benchmarks.students import run_of
from stilla import Scores, by_layers

DOMAINS: Mapping[str, str] = {
    "banking": "freeze_account routing pin_change bill_due pay_bill account_blocked interest_rate min_payment bill_balance "
               "transfer order_checks balance spending_history transactions report_fraud",
    "credit_cards": "replacement_card_duration expiration_date damaged_card improve_credit_score report_lost_card "
                    "card_declined credit_limit_change apr redeem_rewards credit_limit rewards_balance application_status "
                    "credit_score new_card international_fees",
    "kitchen_and_dining": "food_last confirm_reservation how_busy ingredients_list calories nutrition_info recipe "
                          "restaurant_reviews restaurant_reservation meal_suggestion restaurant_suggestion "
                          "cancel_reservation ingredient_substitution cook_time accept_reservations",
    "home": "what_song play_music todo_list_update reminder reminder_update calendar_update order_status update_playlist "
            "shopping_list calendar next_song order todo_list shopping_list_update smart_home",
    "auto_and_commute": "current_location oil_change_when oil_change_how uber traffic tire_pressure schedule_maintenance gas "
                        "mpg distance directions last_maintenance gas_type tire_change jump_start",
    "travel": "plug_type travel_notification translate flight_status international_visa timezone exchange_rate "
              "travel_suggestion travel_alert vaccines lost_luggage book_flight book_hotel carry_on car_rental",
    "utility": "weather alarm date find_phone share_location timer make_call calculator definition measurement_conversion "
               "flip_coin spelling time roll_dice text",
    "work": "pto_request_status next_holiday insurance_change insurance meeting_schedule payday taxes income rollover_401k "
            "pto_balance pto_request w2 schedule_meeting direct_deposit pto_used",
    "small_talk": "who_made_you meaning_of_life who_do_you_work_for do_you_have_pets what_are_your_hobbies fun_fact "
                  "what_is_your_name where_are_you_from goodbye thank_you greeting tell_joke are_you_a_bot how_old_are_you "
                  "what_can_i_ask_you",
    "meta": "change_speed user_name whisper_mode yes change_volume no change_language repeat change_accent cancel "
            "sync_device change_user_name change_ai_name reset_settings maybe",
}
"""As the data's authors group them (data/domains.json of clinc/oos-eval)."""
LANGUAGES = tuple(f"{name}_Latn" for name in ("eng", "deu", "fra", "spa", "ita", "por", "nld", "pol", "tur", "ind"))
TOPICS = ("science/technology", "travel", "politics", "sports", "health", "entertainment", "geography")
"""Of SIB-200, in the order of their numbers."""
STARTS = ("plain", "joint", "reptile")


@dataclass(frozen=True)
class Family:
    """Tasks that are alike. `laid`: a folder for each, from the data and into a folder; `per_task`: classes of each."""

    names: tuple[str, ...]
    target: str
    per_task: int
    classes: str
    laid: Callable[[argparse.Namespace, Path], Path]


def main(arguments: list[str]) -> None:
    options = _options(arguments)
    torch.set_num_threads(options.threads)
    family = FAMILIES[options.family]
    for target in options.targets or [family.target]:
        if target not in family.names:
            raise SystemExit(f"--targets: got {target}; expected some of {', '.join(family.names)}")
    files = family.laid(options, options.output / f"{options.family}-data")
    start = cut(options.layers, options.output / "start")
    for target in options.targets or [family.target]:
        others = [name for name in family.names if name != target]
        where = options.output / target
        teacher = run_of(_taught(options, files, target, where / "teacher"), ()).folder / "teacher"
        found = {}
        for way in options.starts:
            model = start if way != "joint" else joint(options, files, others, start, where / "others")
            student: dict[str, Any] = {"model": str(model)}
            if way == "reptile":
                student["reptile"] = {**_steps(options), "tasks": [str(files / name / "train.parquet") for name in others]}
            found[way] = run_of(_few(options, files, target, student, teacher, where / way), ()).scores
        show(target, options, found)


def domains(options: argparse.Namespace, target: Path) -> Path:
    """A folder for each domain, with its texts and intents by name."""
    folder = clinc150(options.data)
    for split in ("train", "validation", "test"):
        whole = Dataset.from_parquet(str(folder / f"{split}.parquet"), keep_in_memory=True)
        names = whole.features["intent"].names
        known = sorted(intent for intents in DOMAINS.values() for intent in intents.split())
        assert known == sorted(set(names) - {"oos"}), "the domains are not those of these data"
        for domain, intents in DOMAINS.items():
            rows = [row for row, label in enumerate(whole["intent"]) if names[label] in intents.split()]
            some = whole.select(rows)
            (target / domain).mkdir(parents=True, exist_ok=True)
            Dataset.from_dict({"text": some["text"], "label": [names[label] for label in some["intent"]]}).to_parquet(
                str(target / domain / f"{split}.parquet"))
    return target


def languages(options: argparse.Namespace, target: Path) -> Path:
    """A folder for each language, with its sentences and their topics."""
    folder = data_set(options.data, "sib200", "dadelani/sib-200: columns lang, text, label")
    for split in ("train", "validation", "test"):
        whole = pd.read_parquet(folder / f"{split}.parquet")
        for language in LANGUAGES:
            some = whole[whole["lang"] == language]
            (target / language).mkdir(parents=True, exist_ok=True)
            pd.DataFrame({"text": some["text"], "label": [TOPICS[one] for one in some["label"]]}).to_parquet(
                target / language / f"{split}.parquet", index=False)
    return target


FAMILIES: Mapping[str, Family] = {
    "domains": Family(tuple(DOMAINS), "travel", 15, "intents", domains),
    "languages": Family(LANGUAGES, "spa_Latn", len(TOPICS), "topics", languages),
}


def cut(layers: int, target: Path) -> Path:
    """The first layers of all-MiniLM-L6-v2, which nobody has trained since."""
    if not target.is_dir():
        torch.manual_seed(0)
        whole = AutoModelForSequenceClassification.from_pretrained(minilm())
        by_layers(whole, {"keep": list(range(layers))}).model.save_pretrained(target)  # type: ignore[operator]
        AutoTokenizer.from_pretrained(minilm()).save_pretrained(target)
    return target


def joint(options: argparse.Namespace, files: Path, others: list[str], start: Path, output: Path) -> Path:
    """The start after the classes of all other tasks at once, as a run trains a teacher; its student is nobody's."""
    data = output.parent / "others-data"
    data.mkdir(parents=True, exist_ok=True)
    for split in ("train", "validation"):
        parts = [Dataset.from_parquet(str(files / name / f"{split}.parquet"), keep_in_memory=True) for name in others]
        Dataset.from_dict({column: [value for part in parts for value in part[column]] for column in ("text", "label")}
                          ).to_parquet(str(data / f"{split}.parquet"))
    how = _steps(options)
    train = {"max_steps": how["steps"] * how["tasks_per_step"] * how["inner_steps"], "batch_size": how["batch_size"],
             "learning_rate": options.learning_rate, "dropout": 0.0, "precision": "float32",
             "trainer": {"eval_strategy": "no"}}
    return run_of({
        "task": "text-classification", "teacher": {"model": str(start), "train": train}, "student": {"layers": 1},
        "data": {"train": str(data / "train.parquet"), "validation": str(data / "validation.parquet"), "augment": "none",
                 "max_length": 64},
        "distill": {"max_steps": 1, "precision": "float32"}, "evaluate": {"speed": False, "resamples": 100},
        "output": str(output)}, ()).folder / "teacher"


def _taught(options: argparse.Namespace, files: Path, target: str, output: Path) -> dict[str, Any]:
    """The teacher of the new task, with all of its labels; its student is nobody's."""
    train = {"epochs": options.teacher_epochs, "batch_size": 32, "learning_rate": 2e-4, "precision": "float32"}
    return {"task": "text-classification", "data": _files(files / target),
            "teacher": {"model": str(minilm()), "train": train}, "student": {"layers": 1},
            "distill": {"max_steps": 1, "precision": "float32"}, "evaluate": {"speed": False, "resamples": 100},
            "output": str(output)}


def _few(
    options: argparse.Namespace, files: Path, target: str, student: Mapping[str, Any], teacher: Path, output: Path
) -> dict[str, Any]:
    # nothing is chosen by validation data: there are more of them than labels to learn from
    return {"task": "text-classification", "data": {**_files(files / target), "limit": {"per_class": options.labels}},
            "teacher": {"model": str(teacher)}, "student": student,
            "distill": {"epochs": options.epochs, "batch_size": 16, "learning_rate": options.learning_rate,
                        "precision": "float32", "trainer": {"eval_strategy": "no"}},
            "evaluate": {"baseline": True, "seeds": options.seeds, "speed": False}, "output": str(output)}


def _files(folder: Path) -> dict[str, Any]:
    return {**{split: str(folder / f"{split}.parquet") for split in ("train", "validation", "test")}, "augment": "none",
            "max_length": 64}


def _steps(options: argparse.Namespace) -> dict[str, Any]:
    return {"steps": options.steps, "tasks_per_step": 3, "inner_steps": 6, "batch_size": 16,
            "examples": FAMILIES[options.family].per_task * options.labels, "learning_rate": options.learning_rate}


def show(target: str, options: argparse.Namespace, found: Mapping[str, Scores]) -> None:
    family = FAMILIES[options.family]
    print(f"\n{target}: {options.labels} labels of each of {family.per_task} {family.classes}, {options.seeds} seeds, test "
          "accuracy\n")
    print("| start | labels alone | with the teacher beside |\n|---|---:|---:|")
    for way, scores in found.items():
        cells = []
        for subject in ("baseline", "student"):
            one = scores.subjects[subject].quality[scores.split][scores.metric]
            cells.append(f"{one.value:.3f} [{one.low:.3f}, {one.high:.3f}]")
        print(f"| {way} | {cells[0]} | {cells[1]} |")
    first = next(iter(found.values()))
    print(f"\nteacher: {first.teacher[first.metric]:.3f}", flush=True)


def _options(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_data_option(parser)
    parser.add_argument("--family", choices=list(FAMILIES), default="domains", help="of tasks: of CLINC150, or of SIB-200")
    parser.add_argument("--targets", nargs="+", help="the new tasks, one by one: travel, or spa_Latn, if nothing is said")
    parser.add_argument("--starts", nargs="+", choices=STARTS, default=list(STARTS))
    parser.add_argument("--layers", type=int, default=1)
    parser.add_argument("--labels", type=int, default=8, help="of each class")
    parser.add_argument("--steps", type=int, default=40, help="of Reptile: each is 3 x 6 optimiser steps of 16 texts")
    parser.add_argument("--epochs", type=float, default=20.0, help="over the few labels")
    parser.add_argument("--learning-rate", type=float, default=5e-4, help="of all but the teacher")
    parser.add_argument("--teacher-epochs", type=float, default=4.0)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path, default=Path("runs/benchmarks/meta"))
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main(sys.argv[1:])
