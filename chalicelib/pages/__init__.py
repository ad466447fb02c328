from collections.abc import Mapping
from typing import Any

ROUTE: Mapping[str, Any] = {"methods": ["GET"], "content_types": ["*/*"]}
"""How the public pages are routed."""
