"""The table of models: name -> class, alphabetical."""

from __future__ import annotations

from recbole_missing.model.base import MultimodalRecommender
from recbole_missing.model.bm3 import BM3
from recbole_missing.model.dgmrec import DGMRec
from recbole_missing.model.freedom import FREEDOM
from recbole_missing.model.mgcn import MGCN
from recbole_missing.model.vbpr import VBPR

MODELS: dict[str, type[MultimodalRecommender]] = {
    "BM3": BM3,
    "DGMRec": DGMRec,
    "FREEDOM": FREEDOM,
    "MGCN": MGCN,
    "VBPR": VBPR,
}
