"""Train and test a model: ``python run_recbole_missing.py --model=.. --dataset=.. --key=value``."""

import sys

from recbole_missing.cli import main

if __name__ == "__main__":
    main(["run", *sys.argv[1:]])
