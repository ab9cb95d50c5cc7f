"""The table of models: name -> class, alphabetical."""

from __future__ import annotations

from recbole_missing.model.base import MultimodalRecommender
from recbole_missing.model.bm3 import BM3
from recbole_missing.model.ci2mg import CI2MG
from recbole_missing.model.damrs import DAMRS
from recbole_missing.model.dgmrec import DGMRec
from recbole_missing.model.freedom import FREEDOM
from recbole_missing.model.grcn import GRCN
from recbole_missing.model.gume import GUME
from recbole_missing.model.lattice import LATTICE
from recbole_missing.model.lgmrec import LGMRec
from recbole_missing.model.lightgcnm import LightGCNM
from recbole_missing.model.mgcn import MGCN
from recbole_missing.model.milk import MILK
from recbole_missing.model.mmgcn import MMGCN
from recbole_missing.model.mmssl import MMSSL
from recbole_missing.model.ngcfm import NGCFM
from recbole_missing.model.sibrar import SIBRAR
from recbole_missing.model.slmrec import SLMRec
from recbole_missing.model.vbpr import VBPR

MODELS: dict[str, type[MultimodalRecommender]] = {
    "BM3": BM3,
    "CI2MG": CI2MG,
    "DAMRS": DAMRS,
    "DGMRec": DGMRec,
    "FREEDOM": FREEDOM,
    "GRCN": GRCN,
    "GUME": GUME,
    "LATTICE": LATTICE,
    "LGMRec": LGMRec,
    "LightGCNM": LightGCNM,
    "MGCN": MGCN,
    "MILK": MILK,
    "MMGCN": MMGCN,
    "MMSSL": MMSSL,
    "NGCFM": NGCFM,
    "SIBRAR": SIBRAR,
    "SLMRec": SLMRec,
    "VBPR": VBPR,
}
