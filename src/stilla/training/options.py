"""What of `transformers.Trainer` and its arguments works below the recipe, and what is refused, with what to do instead.

Every field of `TrainingArguments`, every argument of `Trainer` and every public method is in one of these lists; a test
holds that for the version of transformers that is installed, and docs/trainer.md shows them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from stilla.errors import did_you_mean
from stilla.recipe.in_words import shown

if TYPE_CHECKING:
    from transformers import TrainingArguments

_BATCHES = "Stilla makes its batches itself"
_EVALUATES = "Stilla evaluates by itself, so it would change nothing"
_HUB = ("a checkpoint holds more than the student; push the finished student instead: `trainer.student.push_to_hub(...)`, "
        "and "
        "its tokenizer likewise")

REFUSED: Mapping[str, str] = {
    "label_names": f"{_BATCHES}; labels are in a column `labels`, `label` or `label_ids`: rename it",
    "dataloader_drop_last": f"{_BATCHES}, and every example counts in every epoch; a short last step is divided by its own "
                            f"counts",
    **dict.fromkeys(
        ("prediction_loss_only", "eval_do_concat_batches", "eval_use_gather_object", "eval_accumulation_steps",
         "bf16_full_eval", "fp16_full_eval"), f"{_EVALUATES}; `bf16` holds for evaluation too"),
    **dict.fromkeys(
        ("include_for_metrics", "batch_eval_metrics"),
        f"{_EVALUATES}; `compute_metrics` gets predictions and labels of all examples at once"),
    "average_tokens_across_devices": "the loss comes from the objectives, divided by what all processes count, so it would "
                                     "change "
                                     "nothing",
    "label_smoothing_factor": "the loss comes from the objectives, so it would change nothing; use "
                              "`Labels(label_smoothing=...)`, in a recipe `{kind: labels, label_smoothing: ...}`",
    **dict.fromkeys(
        ("push_to_hub", "hub_token", "hub_model_id", "hub_strategy", "hub_private_repo", "hub_always_push",
         "hub_revision"), _HUB),
    **dict.fromkeys(
        ("dataloader_persistent_workers", "dataloader_multiprocessing_context", "dataloader_in_order"),
        f"{_BATCHES}, so it would change nothing; `dataloader_num_workers` and `dataloader_prefetch_factor` work"),
    "include_num_input_tokens_seen": f"{_BATCHES}, for two models, so it would change nothing",
    "length_column_name": f"{_BATCHES}: lengths are those of `input_ids`",
    "accelerator_config": f"{_BATCHES} and their parts for every process, so it would change nothing; only its "
                          "`gradient_accumulation_kwargs` are used",
    "parallelism_config": "rows are counted on whole sequences, and every process must hold them; use FSDP or DeepSpeed",
    **dict.fromkeys(
        ("neftune_noise_alpha", "use_liger_kernel", "liger_kernel_config"), "it does not reach the student; leave it out"),
    "auto_find_batch_size": "it would change the training without a word; choose batch size and accumulation",
}  # fmt: skip
"""Fields of `TrainingArguments` that would be overridden, have no effect or do harm, with the reason."""

ALSO_ALLOWED: Mapping[str, tuple[Any, ...]] = {"label_names": (["labels"],)}
"""Values beside the default that mean what happens anyway."""

OURS: Mapping[str, str] = {
    "per_device_train_batch_size": "of a micro-batch; a step's examples are the same however they are cut",
    "gradient_accumulation_steps": "micro-batches of a step, whose loss is divided once",
    "per_device_eval_batch_size": "works",
    **dict.fromkeys(("seed", "data_seed"), "the order of examples, and what collators and datasets draw, by epoch and "
                                           "example"),
    **dict.fromkeys(("dataloader_num_workers", "dataloader_prefetch_factor"), "works, but on a stream"),
    "dataloader_pin_memory": "works",
    "train_sampling_strategy": "`random` and `group_by_length` mean what `DistillationTrainer(group_by_length=...)` says, "
                               "`sequential` is the data's own order; `batch_rebalance` is refused",
    "remove_unused_columns": "columns that neither model takes are left out",
    "bf16": "training and evaluation",
    **dict.fromkeys(("metric_for_best_model", "greater_is_better", "load_best_model_at_end"),
                    "by a measure of the task or of `compute_metrics`; there is no `eval_loss`. What is lower the better "
                    "is known, and "
                    "what is undefined is worse than anything"),
    "ddp_find_unused_parameters": "set where hidden states alone are compared, or LayerDrop or SpecAugment leave weights out",
    "logging_nan_inf_filter": "off in effect: a loss that is not finite stops the training",
    "save_only_model": "works; such a checkpoint cannot be continued exactly",
    "max_steps": "needed for a stream",
}  # fmt: skip
"""Fields that Stilla acts on itself, and how."""

HANDED_ON = (
    "output_dir", "num_train_epochs", "learning_rate", "lr_scheduler_type", "lr_scheduler_kwargs", "warmup_steps",
    "optim", "optim_args", "weight_decay", "adam_beta1", "adam_beta2", "adam_epsilon", "optim_target_modules",
    "max_grad_norm", "fp16", "tf32", "activation_checkpointing", "activation_checkpointing_kwargs",
    "gradient_checkpointing", "gradient_checkpointing_kwargs", "use_cache", "torch_compile",
    "torch_compile_backend", "torch_compile_mode", "torch_empty_cache_steps", "logging_strategy", "logging_steps",
    "logging_first_step", "log_on_each_node", "log_level", "log_level_replica", "disable_tqdm", "report_to",
    "run_name", "project", "trackio_space_id", "trackio_bucket_id", "trackio_static_space_id", "eval_strategy",
    "eval_steps", "eval_delay", "eval_on_start", "save_strategy", "save_steps", "save_on_each_node",
    "save_total_limit", "enable_jit_checkpoint", "ignore_data_skip", "restore_callback_states_from_checkpoint",
    "full_determinism", "use_cpu", "ddp_bucket_cap_mb", "ddp_broadcast_buffers", "ddp_static_graph", "ddp_backend",
    "ddp_timeout", "fsdp", "fsdp_config", "deepspeed", "debug", "skip_memory_metrics", "do_train", "do_eval",
    "do_predict", "resume_from_checkpoint", "local_rank",
)  # fmt: skip
"""Fields that transformers acts on as it always does."""

KEYWORDS: Mapping[str, str] = {
    "args": "see below",
    "train_dataset": "model inputs and labels, by place or as a stream; columns that no model takes may be there",
    "eval_dataset": "likewise, not as a stream; or several by name",
    "data_collator": "any; of `labels`, decoder inputs are made as the model makes them where the collator makes none",
    "processing_class": "pads where no collator is given, and is saved beside the student",
    "compute_metrics": "gets logits and labels in the data's own order; its measures are added to the task's",
    "preprocess_logits_for_metrics": "works",
    "callbacks": "work; their `model` is the distiller, `model.student` the student",
    "optimizers": "work where they hold the student's parameters and those of all terms",
    "optimizer_cls_and_kwargs": "works, for the parameters of the terms too",
}
"""Arguments of `Trainer` that work."""

REFUSED_KEYWORDS: Mapping[str, str] = {
    "model": "the student is the first argument: DistillationTrainer(student, teacher, ...)",
    "model_init": "a new student for every training also needs a new distiller; make a DistillationTrainer for each",
    "compute_loss_func": "the loss comes from `terms`; write an objective of your own instead (docs/adding-an-objective.md)",
}
"""Arguments of `Trainer` that are refused, with what to do instead."""

METHODS = (
    "train", "evaluate", "predict", "save_model", "save_state", "log", "log_metrics", "save_metrics", "metrics_format",
    "add_callback", "pop_callback", "remove_callback", "get_train_dataloader", "get_eval_dataloader", "get_test_dataloader",
    "create_optimizer", "create_scheduler", "create_optimizer_and_scheduler", "get_optimizer_cls_and_kwargs",
    "get_decay_parameter_names", "get_learning_rates", "get_num_trainable_parameters", "get_optimizer_group",
    "is_local_process_zero", "is_world_process_zero", "create_model_card", "end",
)  # fmt: skip
"""Public methods that work."""

REFUSED_METHODS: Mapping[str, str] = {
    "hyperparameter_search": "it needs `model_init`, a new student for every trial; make a DistillationTrainer for each",
    "call_model_init": "there is no `model_init`; make a DistillationTrainer for each student",
    **dict.fromkeys(("push_to_hub", "init_hf_repo"), _HUB),
    "evaluation_loop": "Stilla evaluates by itself; use `evaluate` or `predict`",
    "prediction_step": "Stilla evaluates by itself; use `evaluate` or `predict`",
}
"""Public methods that are refused, with what to do instead."""

INNER = (
    "training_step", "compute_loss", "compute_loss_context_manager", "autocast_smart_context_manager", "get_batch_samples",
    "set_initial_training_values", "get_total_train_batch_size", "get_sp_size", "get_cp_size", "get_tp_size", "num_examples",
    "store_flos", "floating_point_ops", "create_accelerator_and_postprocess",
)  # fmt: skip
"""Public methods that the training loop calls, and nobody else."""


def argument_problems(args: TrainingArguments) -> list[str]:
    """What these arguments ask for that would be ignored or do harm, and what to do instead; empty if nothing."""
    problems = []
    for field in dataclasses.fields(args):
        value = vars(args).get(field.name)
        if field.name in REFUSED and not _harmless(field, value):
            problems.append(f"args.{field.name}: got {shown(value)}; {REFUSED[field.name]}")
    if args.train_sampling_strategy == "batch_rebalance":
        problems.append(f'args.train_sampling_strategy: got "batch_rebalance"; {_BATCHES}; expected random, '
                        f'group_by_length or '
                        "sequential")
    return problems


def keyword_problems(given: Mapping[str, Any]) -> list[str]:
    """The same for arguments of `Trainer` that `DistillationTrainer` does not take."""
    known = [*KEYWORDS, "student", "teacher", "terms", "task", "group_by_length", "pull", "average", "hardest", "adapt",
             "compile", "batch_norm", "unlabelled_share", "extend"]
    return [f"{name}: {REFUSED_KEYWORDS[name]}" if name in REFUSED_KEYWORDS
            else f"{name}: there is no such argument.{did_you_mean(name, known)}" for name in given]


def _harmless(field: dataclasses.Field[Any], value: Any) -> bool:
    if field.name == "accelerator_config":
        return _as_made(value)
    default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
    return value == default or value in ALSO_ALLOWED.get(field.name, ())


def _as_made(config: Any) -> bool:
    """Whether an `AcceleratorConfig` says nothing about batches."""
    given = dict(vars(config))
    given.pop("gradient_accumulation_kwargs", None)
    fresh = vars(type(config)())
    return all(fresh[name] == value for name, value in given.items())
