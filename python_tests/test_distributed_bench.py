"""`cgsv bench distributed`, tiny."""

from __future__ import annotations

import re

import pytest

from cgsv_ext import cli
from cgsv_ext.distributed import exchanges


def test_it_prints_times_and_bytes(capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        cli.main(
            ["bench", "distributed", "--ranks", "2", "--agents", "3", "--columns", "500", "--rounds", "2"]
        )
        == 0
    )
    text = capsys.readouterr().out
    expected = exchanges(3)
    put, sent = sum(c.bytes for c in expected), sum(c.sent(2) for c in expected)
    assert re.search(r"no group +\d+\.\d\d +1\.00×", text)
    assert re.search(rf"\n +2 +\d+\.\d\d +\d\.\d\d× +\d+\.\d\d ms +{put:,} +{sent:,.0f}", text)
    assert text.count("digit, sum") == 3
    # What the system counts is all that was sent, and what TCP and the barriers between rounds add.
    loopback = int(re.search(r"\n +2 .* ([\d,]+)\n", text)[1].replace(",", ""))
    assert loopback >= 2 * sent


def test_what_it_does_not_take(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main(["bench", "distributed", "--ranks", "0"])
    assert stop.value.code == 2
    assert "expected at least 1, got 0" in capsys.readouterr().err
