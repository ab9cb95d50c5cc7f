"""The table of models: name -> ``module:Class``, alphabetical."""

from __future__ import annotations

from typing import TYPE_CHECKING

from recbole_missing.registry import Registry

if TYPE_CHECKING:
    from recbole_missing.model.base import MultimodalRecommender

MODELS: Registry[MultimodalRecommender] = Registry(
    "model",
    "register_model",
    {
        "BM3": "recbole_missing.model.bm3:BM3",
        "CI2MG": "recbole_missing.model.ci2mg:CI2MG",
        "DAMRS": "recbole_missing.model.damrs:DAMRS",
        "DGMRec": "recbole_missing.model.dgmrec:DGMRec",
        "FREEDOM": "recbole_missing.model.freedom:FREEDOM",
        "GRCN": "recbole_missing.model.grcn:GRCN",
        "GUME": "recbole_missing.model.gume:GUME",
        "LATTICE": "recbole_missing.model.lattice:LATTICE",
        "LGMRec": "recbole_missing.model.lgmrec:LGMRec",
        "LightGCNM": "recbole_missing.model.lightgcnm:LightGCNM",
        "MGCN": "recbole_missing.model.mgcn:MGCN",
        "MILK": "recbole_missing.model.milk:MILK",
        "MMGCN": "recbole_missing.model.mmgcn:MMGCN",
        "MMSSL": "recbole_missing.model.mmssl:MMSSL",
        "NGCFM": "recbole_missing.model.ngcfm:NGCFM",
        "SIBRAR": "recbole_missing.model.sibrar:SIBRAR",
        "SLMRec": "recbole_missing.model.slmrec:SLMRec",
        "VBPR": "recbole_missing.model.vbpr:VBPR",
    },
    base="recbole.model.abstract_recommender:AbstractRecommender",
)
