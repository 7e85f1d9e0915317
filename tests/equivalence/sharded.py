"""FSDP2 over gloo on processors, the whole way through Trainer and accelerate. Also run as a program by launchers.

Accelerate spreads weights over accelerators only, and on processors trains as if nobody had asked (which Stilla refuses).
Everything else runs there, so the tests let it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from accelerate.state import AcceleratorState, PartialState
from accelerate.utils import DistributedType
from torch import nn
from torch.distributed.fsdp import fully_shard

from stilla import DistillationTrainer
from stilla.models.spread import gathered, is_spread
from tests.equivalence import language, setting

KINDS = ("classes", "causal", "untied", "seq2seq", "masked")
"""A classifier with projections; language models with a head that is tied to its embedding, to nothing, to two embeddings,
by its bias."""
WELL = KINDS[:2]
"""Those that everything is tried with."""
STEPS, MIDDLE, BATCH = 4, 2, 12
FORMS = ("FULL_STATE_DICT", "SHARDED_STATE_DICT")


@contextmanager
def on_processors() -> Iterator[None]:
    """Inside, accelerate does with `fsdp` on processors what it does on accelerators."""
    begin = AcceleratorState.__init__

    def beginning(self: AcceleratorState, *args: Any, **options: Any) -> None:
        begin(self, *args, **options)
        plugin = options.get("fsdp_plugin")
        if plugin is not None and self.distributed_type == DistributedType.MULTI_CPU:
            self.distributed_type = PartialState._shared_state["distributed_type"] = DistributedType.FSDP
            if self._mixed_precision != "no":
                plugin.set_mixed_precision(self._mixed_precision)
            self.fsdp_plugin = plugin

    with mock.patch.object(AcceleratorState, "__init__", beginning):
        yield


def trainer(kind: str, folder: Path, processes: int = 1, *, fsdp: dict[str, Any] | None = None, **options: Any
            ) -> DistillationTrainer:
    """In steps of twelve examples, in whatever number of processes."""
    arguments = {"per_device_train_batch_size": BATCH // processes, "max_steps": STEPS, "save_strategy": "steps",
                 "save_steps": MIDDLE, "optim": "adamw_torch", "adam_epsilon": 1e-4, "learning_rate": 1e-3, **options}
    if fsdp is not None:
        arguments |= {"fsdp": True, "fsdp_config": dict(fsdp)}
    return setting.trainer(folder, **arguments) if kind == "classes" else language.trainer(kind, folder, **arguments)


def result(made: DistillationTrainer) -> dict[str, Any]:
    """What came of a training; all processes call."""
    return {"losses": setting.losses(made), "weights": gathered(made.model, keep=True), "spread": is_spread(made.model)}


def shard(model: nn.Module, layers: nn.ModuleList) -> None:
    """As a person does it: every layer by itself, then what is left."""
    for layer in layers:
        fully_shard(layer)
    fully_shard(model, reshard_after_forward=True)


def two_processes(folder: Path) -> dict[str, Any]:
    """Every kind, spread over two processes; checkpoints of both forms, continued; in bfloat16; with a spread teacher."""
    found: dict[str, Any] = {}
    for kind in KINDS:
        for form in FORMS:
            place, fsdp = folder / kind / form, {"state_dict_type": form}
            made = trainer(kind, place, 2, fsdp=fsdp)
            made.train()
            again = trainer(kind, place, 2, fsdp=fsdp)
            again.train(resume_from_checkpoint=str(place / f"checkpoint-{MIDDLE}"))
            found[f"{kind} {form}"] = {**result(made), "again": result(again)["weights"]}
            made.save_model(str(place / "saved"))
        if kind not in WELL:
            continue
        cut = trainer(kind, folder / kind / "cut", 2, fsdp={}, per_device_train_batch_size=2, gradient_accumulation_steps=3)
        cut.train()
        found[f"{kind} cut"] = result(cut)
        halved = trainer(kind, folder / kind / "halved", 2, fsdp={}, bf16=True)
        halved.train()
        found[f"{kind} halved"] = result(halved)
    measured = trainer("classes", folder / "measured", 2, fsdp={}, eval_strategy="steps", eval_steps=1)
    measured.train()
    predicted = measured.predict(setting.examples(9)).predictions
    found["measured"] = {**measured.evaluate(), "predicted": torch.from_numpy(predicted)}
    found["weights measured"] = result(measured)
    trainer("classes", folder / "plain", 2).train()
    taught = trainer("causal", folder / "taught", 2)
    teacher: Any = taught.teacher
    shard(teacher.model, teacher.model.model.layers)
    taught.train()
    found["taught"] = {**result(taught), "teacher": is_spread(teacher.model)}
    return found


def three_processes(folder: Path) -> dict[str, Any]:
    """What two have begun."""
    found = {}
    for kind in WELL:
        for form in FORMS:
            made = trainer(kind, folder / kind, 3, fsdp={"state_dict_type": form})
            made.train(resume_from_checkpoint=str(folder.parent / "two" / kind / form / f"checkpoint-{MIDDLE}"))
            found[f"{kind} {form}"] = result(made)
    return found


def zero(stage: int, *, bf16: bool = False) -> dict[str, Any]:
    """DeepSpeed's configuration as its users write it, but that it spreads small weights too, as it does large ones."""
    spreading = {"stage": stage, "stage3_param_persistence_threshold": 0}
    return {"train_micro_batch_size_per_gpu": "auto", "gradient_accumulation_steps": "auto", "gradient_clipping": "auto",
            "bf16": {"enabled": bf16}, "zero_optimization": spreading, "zero_allow_untested_optimizer": True}


def by_deepspeed(folder: Path) -> dict[str, Any]:
    """As for FSDP2, with every stage of ZeRO, which runs on processors as it is."""
    found: dict[str, Any] = {}
    for kind in (*WELL, "untied"):
        for stage in (3,) if kind == "untied" else (1, 2, 3):
            place, options = folder / kind / str(stage), {"deepspeed": zero(stage)}
            made = trainer(kind, place, 2, **options)
            made.train()
            again = trainer(kind, place, 2, **options)
            again.train(resume_from_checkpoint=str(place / f"checkpoint-{MIDDLE}"))
            found[f"{kind} {stage}"] = {**result(made), "again": result(again)["weights"]}
            made.save_model(str(place / "saved"))
            if kind == "classes":
                found[f"measured {stage}"] = made.evaluate()
        if kind not in WELL:
            continue
        cut = trainer(kind, folder / kind / "cut", 2, deepspeed=zero(2), per_device_train_batch_size=2,
                      gradient_accumulation_steps=3)
        cut.train()
        found[f"{kind} cut"] = result(cut)
        halved = trainer(kind, folder / kind / "halved", 2, deepspeed=zero(3, bf16=True), bf16=True)
        halved.train()
        found[f"{kind} halved"] = result(halved)
    taught = trainer("untied", folder / "taught", 2)
    teacher: Any = taught.teacher
    import deepspeed

    deepspeed.initialize(model=teacher.model, config={"train_micro_batch_size_per_gpu": 1,
                                                      "zero_optimization": zero(3)["zero_optimization"]})
    taught.train()
    found["taught"] = {**result(taught), "teacher": is_spread(teacher.model)}
    return found


def whole_run(recipe: Path) -> None:
    """`stilla run`, which would refuse to spread weights over processors."""
    from stilla import cli

    with mock.patch("stilla.training.arguments.section_problems", return_value=[]):
        sys.argv = ["stilla", "run", str(recipe)]
        cli.program()


RUNS = {"two": two_processes, "three": three_processes, "deepspeed": by_deepspeed, "run": whole_run}

if __name__ == "__main__":
    place = Path(sys.argv[1])
    with on_processors():
        done = RUNS[sys.argv[2]](place)
    torch.save(done, place / f"rank{torch.distributed.get_rank()}.pt")
