"""Where no browser is, tests skip with the reason; where one was promised, they fail."""

from __future__ import annotations

from pathlib import Path

import pytest
from _pytest.outcomes import Failed, Skipped

from tests.browser import find_browser


def test_a_promised_browser_must_be_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("TAPIR_NEEDS_BROWSER", raising=False)
    with pytest.raises(Skipped, match="no browser: none of chromium-headless-shell"):
        find_browser()
    monkeypatch.setenv("TAPIR_NEEDS_BROWSER", "1")
    with pytest.raises(Failed, match="no browser"):
        find_browser()
    (tmp_path / "chromium").write_text("")
    (tmp_path / "chromium").chmod(0o755)
    assert find_browser() == str(tmp_path / "chromium")
