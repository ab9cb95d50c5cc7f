"""Train and test a model: ``python run_recbole_missing.py --model=.. --dataset=.. --key=value``."""

from recbole_missing.cli import run

if __name__ == "__main__":
    run()
