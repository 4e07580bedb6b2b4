"""`python -m infra.gateway CONFIG.json`: serve until SIGTERM."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from infra.gateway.config import GatewayConfig
from infra.gateway.server import serve

if __name__ == "__main__":
    asyncio.run(serve(GatewayConfig.model_validate_json(Path(sys.argv[1]).read_text())))
