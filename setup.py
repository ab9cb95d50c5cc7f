"""Metadata, and where the YAML files go; tool settings are in pyproject.toml."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
VERSION = re.search(
    r'^__version__ = "(.+)"$', (HERE / "recbole_missing/version.py").read_text(), re.MULTILINE
)[1]

setup(
    name="recbole-missing",
    version=VERSION,
    description="Recommendation with missing modalities, as a RecBole plugin",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="MIT",
    python_requires=">=3.9,<3.12",
    packages=[*find_packages(include=["recbole_missing*"]), "recbole_missing.properties"],
    package_dir={"recbole_missing.properties": "properties"},
    package_data={"recbole_missing.properties": ["*.yaml", "*/*.yaml"]},
    install_requires=[
        "recbole==1.2.1",
        "torch>=2.0,<2.14",
        "numpy<2",
        "pandas<3",
        "scipy<1.13",
        "setuptools<81",
        "scikit-learn",
        "safetensors",
        "pyyaml>=5.4",  # before it, the loader that RecBole uses ran code
        "tabulate",
        "tqdm>=4.58",  # the first with a delay
        "filelock",
        "pillow>=9.1",
    ],
    extras_require={
        "docs": ["sphinx>=7", "myst-parser>=2", "furo"],
        "encode": ["sentence-transformers>=3"],
        "plot": ["matplotlib>=3.7"],
        "ray": ["ray>=2.6"],
        "table": ["pyarrow"],
        "test": [
            "pytest",
            "pytest-xdist",
            "ruff",
            "mypy",
            "matplotlib>=3.7",
            "pyarrow",
            "sentence-transformers>=3",
        ],
    },
    entry_points={"console_scripts": ["recbole-missing = recbole_missing.cli:main"]},
)
