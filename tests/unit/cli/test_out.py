"""Sizes, times, tables and what a terminal gets."""

import io
from types import SimpleNamespace

import pytest

from gradient.cli import _out
from gradient.cli._session import describe_changes

SECOND = 1_000_000_000


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def go_on_terminal(monkeypatch):
    """Make standard output a terminal with colours."""
    terminal = Terminal()
    monkeypatch.setattr("sys.stdout", terminal)
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    return terminal


@pytest.mark.parametrize(
    ("num_bytes", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1536, "1.5 KiB"),
        ((1 << 20) - 1, "1.0 MiB"),
        (1_395_864_371, "1.3 GiB"),
        (5 << 60, "5.0 EiB"),
    ],
)
def test_sizes_have_iec_units_and_one_decimal(num_bytes, text):
    assert _out.size(num_bytes) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 seconds ago"),
        (1, "1 second ago"),
        (59, "59 seconds ago"),
        (60, "1 minute ago"),
        (7199, "1 hour ago"),
        (86_400 * 3, "3 days ago"),
        (86_400 * 800, "2 years ago"),
        (-5, "in the future"),
    ],
)
def test_times_are_told_by_their_largest_unit(seconds, text):
    now = 2_000_000_000 * SECOND
    assert _out.ago(now - seconds * SECOND, now) == text


def test_iso_times_are_utc():
    assert _out.iso(1_700_000_000 * SECOND + 7_999_999) == "2023-11-14T22:13:20.007Z"
    assert _out.clock(1_700_000_000 * SECOND + 7_999_999) == "2023-11-14T22:13:20Z"


def test_counts_are_grouped():
    assert [_out.count(number, "commit") for number in (1, 2, 10_000)] == ["1 commit", "2 commits", "10,000 commits"]


def test_columns_line_up_whatever_the_colours(monkeypatch):
    go_on_terminal(monkeypatch)
    text = _out.table([("a", _out.paint("bb", _out.BOLD), "1"), ("ccc", "d", "22")], right=(2,))
    assert _out.safe(text, painted=True).splitlines() == ["a    \x1b[1mbb\x1b[0m   1", "ccc  d   22"]


def test_columns_line_up_whatever_a_stranger_s_name_holds():
    text = _out.table([("a\x1b[8m", "1"), ("ccc", "22")], right=(1,))
    assert _out.safe(text, painted=True).splitlines() == ["a\\x1b[8m   1", "ccc       22"]


def test_colours_are_printed_around_what_a_stranger_s_name_holds_and_not_within(monkeypatch):
    terminal = go_on_terminal(monkeypatch)
    _out.data(f"branch {_out.paint('main' + chr(27) + '[8m hidden', _out.GREEN)}")
    assert terminal.getvalue() == "branch \x1b[32mmain\\x1b[8m hidden\x1b[0m\n"


def test_control_characters_from_a_repository_do_not_reach_the_terminal():
    assert _out.one_line("evil\x1b[2J\nname\r") == "evil\\x1b[2J name\\r"


def test_a_line_of_a_stranger_is_cut_and_says_so():
    assert _out.one_line("a " * 4096) == "a " * 2048 + "... (4,096 more characters)"
    assert _out.one_line("a" * 4096) == "a" * 4096


def test_a_text_of_a_stranger_is_cut_and_says_so():
    assert _out.first_lines("a\n\x1b\n") == ["a", "\\x1b"]
    lines = _out.first_lines("a\n" * (1 << 20))
    assert (len(lines), lines[-1]) == ((1 << 15) + 1, "... (2,031,616 more characters)")


@pytest.mark.parametrize(("num", "end"), [(10, []), (11, ["1 more"]), (5010, ["5,000 more"])])
def test_of_many_changes_a_line_names_ten(num, end):
    operation = SimpleNamespace(changes=[(f"b{i}", None, "0" * 64) for i in range(num)])
    assert describe_changes(operation).split(", ")[9:] == ["b9 none -> 00000000", *end]


def test_a_long_text_is_looked_through_in_pieces():
    text = "a\x1b[8m" * 100_000
    assert _out.printable(text) == "a\\x1b[8m" * 100_000


@pytest.mark.parametrize(("variable", "value"), [("NO_COLOR", "1"), ("TERM", "dumb")])
def test_colours_can_be_switched_off(monkeypatch, variable, value):
    go_on_terminal(monkeypatch)
    assert _out.safe(_out.paint("x", _out.RED), painted=True) == "\x1b[31mx\x1b[0m"
    monkeypatch.setenv(variable, value)
    assert _out.paint("x", _out.RED) == "x"


def test_long_results_go_through_the_pager_on_a_terminal(monkeypatch, tmp_path):
    paged = tmp_path / "paged"
    monkeypatch.setenv("GRADIENT_PAGER", f"cat > {paged}")
    monkeypatch.setattr("sys.stdout", Terminal())
    text = "line\n" * 1000
    _out.paged(text)
    assert paged.read_text() == text


@pytest.mark.parametrize("pager", ["", "cat", "no-such-program-anywhere"])
def test_without_a_pager_results_are_printed(monkeypatch, pager):
    monkeypatch.setenv("GRADIENT_PAGER", pager)
    terminal = Terminal()
    monkeypatch.setattr("sys.stdout", terminal)
    _out.paged("line\n" * 1000)
    assert terminal.getvalue() == "line\n" * 1000


def test_short_results_need_no_pager(monkeypatch):
    monkeypatch.setenv("GRADIENT_PAGER", "false")
    terminal = Terminal()
    monkeypatch.setattr("sys.stdout", terminal)
    _out.paged("line\n")
    assert terminal.getvalue() == "line\n"
