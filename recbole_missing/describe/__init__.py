"""A first look at a data set: measure it, and write what was found as text or as a page.

``splits -> measure.describe -> Description -> text.text | page.page``
"""

from recbole_missing.describe.description import Description
from recbole_missing.describe.measure import describe

__all__ = ["Description", "describe"]
