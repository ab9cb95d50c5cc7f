"""Run a model as RecBole users know it: ``python run_recbole_missing.py --model=.. --dataset=..``."""

from recbole_missing.cli import run

if __name__ == "__main__":
    run()
