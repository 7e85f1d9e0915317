"""A stream in training and predictions of it, as one of several processes; run by launchers."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from stilla import DistillationTrainer, Term
from stilla.objectives import Labels, Logits
from tests import tiny
from tests.equivalence.setting import losses, weights
from tests.training.setting import arguments, classifier, tokenised

if __name__ == "__main__":
    folder, batch, accumulate = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    made = DistillationTrainer(
        classifier(), classifier(layers=2, seed=1), terms=[Term(Labels()), Term(Logits())],
        train_dataset=tokenised().to_iterable_dataset(), eval_dataset={"a": tokenised(), "b": tokenised(9)},
        processing_class=tiny.tokenizer(), compute_metrics=lambda said: {"count": float(len(said.label_ids))},
        args=arguments(folder, optim="sgd", max_steps=3, per_device_train_batch_size=batch,
                       gradient_accumulation_steps=accumulate, ddp_find_unused_parameters=False,
                       per_device_eval_batch_size=4))
    made.train()
    found = made.predict(tokenised(9))
    made.save_model(str(folder / "saved"))
    torch.save((weights(made), losses(made), made.evaluate(), torch.from_numpy(found.predictions)),
               folder / f"rank{made.args.process_index}.pt")
