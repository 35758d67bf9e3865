"""Packaging of sklearn_jeidnn; the version stands in ``sklearn_jeidnn/__init__.py``."""

import pathlib
import re

from setuptools import find_packages, setup

HERE = pathlib.Path(__file__).parent
VERSION = re.search(
    r'__version__ = "(.+)"', (HERE / "sklearn_jeidnn/__init__.py").read_text()
).group(1)
EXTRAS = {
    "plot": ["matplotlib>=3.8"],
    "test": ["pytest>=8", "pytest-xdist>=3.5", "pandas>=2"],
    "benchmark": [
        "matplotlib>=3.8",
        "pandas>=2",
        "pillow>=10",
        "safetensors>=0.4",
        "transformers>=4.50",
        "mapie>=1.0",
        "crepes>=0.7",
        "lightgbm>=4",
    ],
    "dev": ["ruff>=0.6"],
}

setup(
    name="sklearn_jeidnn",
    version=VERSION,
    description="Neural classifiers that spend on a row only as much computation as the row needs",
    long_description=(HERE / "README.md").read_text(),
    long_description_content_type="text/markdown",
    license="BSD-3-Clause",
    packages=find_packages(include=["sklearn_jeidnn", "sklearn_jeidnn.*"]),
    package_data={"sklearn_jeidnn": ["py.typed"]},
    python_requires=">=3.10",
    install_requires=[
        "torch>=2.5",
        "skorch>=1.1",
        "scikit-learn>=1.6",
        "numpy>=1.26",
        "scipy>=1.11",
        "joblib>=1.3",
    ],
    extras_require={**EXTRAS, "all": sorted({name for names in EXTRAS.values() for name in names})},
    classifiers=[
        "Programming Language :: Python :: 3",
        "Intended Audience :: Science/Research",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
)
