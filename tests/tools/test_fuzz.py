import numpy as np
import pytest

from glic_pyg import GLIC
from glic_pyg.bitstream import BitstreamError, decode, unpack
from glic_pyg.evaluation import fuzz
from glic_pyg.evaluation.fuzz import Findings, try_file, wrong_file

from ..test_bitstream import GOLDEN  # noqa: TID252
