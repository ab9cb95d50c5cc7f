"""Does every model learn on real data: test metrics of the untrained model and after some epochs.

    python tests/speed/every_model.py --dataset ml-100k --epochs 3 [--model NAME ...] [--key=value]

Everything goes through RecBole's config, data set, dataloaders and trainer, as a run does; the
last epoch is tested, not the best one. Prints a Markdown table and exits with 1 if a model does
not beat its untrained self. What training costs is in epochs.py.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


def learn(name: str, dataset: str, files: list[str], settings: dict[str, Any]) -> dict[str, Any]:
    """Test metrics before and after training."""
    from recbole.config import Config
    from recbole.data import create_dataset, data_preparation
    from recbole.utils import get_model, get_trainer, init_logger, init_seed

    config = Config(name, dataset, files, settings)
    init_seed(config["seed"], config["reproducibility"])
    init_logger(config)
    train, valid, test = data_preparation(config, create_dataset(config))
    model = get_model(name)(config, train._dataset).to(config["device"])
    trainer = get_trainer(config["MODEL_TYPE"], name)(config, model)
    model.on_validation_start()
    before = trainer.evaluate(test, load_best_model=False)
    trainer.fit(train, saved=False)
    model.on_validation_start()
    after = trainer.evaluate(test, load_best_model=False)
    return {"before": before, "after": after}


def main() -> None:
    """Run the models one after the other and print a row each."""
    sys.path.insert(0, str(ROOT))
    from recbole_missing import MODELS

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dataset", default="ml-100k")
    parser.add_argument("--config_files", default="")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--model", nargs="+", default=list(MODELS), choices=list(MODELS))
    known, rest = parser.parse_known_args()
    settings = dict(argument[2:].split("=", 1) for argument in rest)
    settings = {**settings, "epochs": known.epochs, "show_progress": False, "state": "ERROR"}
    sys.argv = sys.argv[:1]
    print("| model | untrained Recall@20 | NDCG@20 | trained Recall@20 | NDCG@20 |")
    print("|---|---|---|---|---|", flush=True)
    failed = []
    for name in known.model:
        row = learn(name, known.dataset, known.config_files.split(), dict(settings))
        metrics = ("recall@20", "ndcg@20")
        cells = [f"{row[when][key]:.4f}" for when in ("before", "after") for key in metrics]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)
        if any(row["after"][key] <= row["before"][key] for key in metrics):
            failed.append(name)
    if failed:
        sys.exit(f"not better than untrained: {', '.join(failed)}")


if __name__ == "__main__":
    main()
