"""The methods that RAM is compared with, each on the same frozen CLIP."""

from model.compared.coop import CoOp
from model.compared.dual_coop import DualCoOp

__all__ = ["CoOp", "DualCoOp"]
