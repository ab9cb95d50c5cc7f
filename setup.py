"""Metadata, and where the YAML files go; tool settings are in pyproject.toml."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
VERSION = re.search(
    r'^__version__ = "(.+)"$', (HERE / "recbole_missing/version.py").read_text(), re.MULTILINE
)[1]

# What RecBole 1.2.1 requires, but Ray, which only its search for hyper-parameters uses. RecBole
# itself cannot stand here: it demands ray<=2.6.3, of which Python 3.12 and later have no build.
# `python -m pip install --no-deps recbole==1.2.1` brings it; see recbole_missing/environment.py.
OF_RECBOLE = [
    "torch>=2.0,<2.14",
    "numpy>=1.22",
    "scipy>=1.8",
    "pandas>=1.5,<3",  # RecBole's `fillna(inplace=True)` on a column does nothing in pandas 3
    "tqdm>=4.58",  # the first with a delay
    "colorlog>=4.7.2",
    "colorama>=0.4.4",
    "scikit-learn>=1.0",
    "pyyaml>=5.4",  # before it, the loader that RecBole uses ran code
    "tensorboard>=2.5",
    "thop>=0.1.1.post2207130030",
    "setuptools; python_version >= '3.12'",  # thop imports distutils, which Python has dropped
    "tabulate>=0.8.10",
    "plotly>=4.0",
    "texttable>=0.9",
    "psutil>=5.9",
]

# pyarrow 26 needs numpy 2 and does not tell pip; numpy 1 ends with Python 3.11.
PARQUET = ["pyarrow<26; python_version < '3.12'", "pyarrow; python_version >= '3.12'"]

setup(
    name="recbole-missing",
    version=VERSION,
    description="Recommendation with missing modalities, as a RecBole plugin",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="MIT",
    license_files=["LICENSE"],
    keywords=["recommender systems", "multimodal", "missing modalities", "RecBole"],
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Science/Research",
        "Programming Language :: Python :: 3",
        *(f"Programming Language :: Python :: 3.{minor}" for minor in range(9, 15)),
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
    python_requires=">=3.9,<3.15",
    packages=[*find_packages(include=["recbole_missing*"]), "recbole_missing.properties"],
    package_dir={"recbole_missing.properties": "properties"},
    package_data={"recbole_missing.properties": ["*.yaml", "*/*.yaml"]},
    install_requires=[*OF_RECBOLE, "filelock", "packaging", "pillow>=9.1", "safetensors"],
    extras_require={
        "docs": ["sphinx>=7", "myst-parser>=2", "furo"],
        "encode": ["sentence-transformers>=3"],
        "plot": ["matplotlib>=3.7"],
        "ray": ["ray>=2.6"],
        "table": PARQUET,
        "test": [
            "pytest",
            "pytest-xdist",
            "ruff",
            "mypy",
            "matplotlib>=3.7",
            *PARQUET,
            "sentence-transformers>=3",
        ],
    },
    entry_points={"console_scripts": ["recbole-missing = recbole_missing.cli:main"]},
)
