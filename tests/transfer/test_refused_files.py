"""Files that are not read: each says in which line, and why."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from chalicelib.transfer.importing import BadFile, check
from chalicelib.transfer.lines import MAX_LINE

FIRST = {"export": {"format": 1}}
DID = "did:plc:aaaaaaaaaaaaaaaaaaaaaaaa"
HOST = {"host": {"origin": "hold01.example.com", "status": "active", "first_seen_at": 1}}
REPO = {"repo": {"did": DID, "sync": "new"}}
RECORD = {"record": {"did": DID, "path": "io.atcr.tag/1", "cid": "b", "rev": "3", "value": {}, "indexed_at": 1}}
LISTING = {"listing": {"collection": "io.atcr.tag", "key": f"0001#{DID}"}}
BAN = {"state": {"kind": "ban", "id": "example.net", "content": {"reason": "spam"}, "number": 1}}


def written(path: Path, *lines: Any, end: Any = None) -> Path:
    whole = [FIRST, *lines, {"end": {"lines": len(lines) + 1}} if end is None else end]
    texts = [line if isinstance(line, str) else json.dumps(line) for line in whole if line]
    path.write_bytes("".join(f"{text}\n" for text in texts).encode(errors="surrogateescape"))
    return path


def changed(line: dict[str, Any], **values: Any) -> dict[str, Any]:
    ((kind, content),) = line.items()
    return {kind: {name: value for name, value in {**content, **values}.items() if value is not ...}}


def test_a_good_file_is_taken(file: Path) -> None:
    checked = check(written(file, HOST, REPO, RECORD, LISTING, BAN))
    assert dict(checked.counts) == dict.fromkeys(("export", "host", "repo", "record", "listing", "state", "end"), 1)


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("", "line 2: no JSON"),
        ("hold01.example.com", "line 2: no JSON"),
        ("\udcff\udcfe", "line 2: no JSON"),
        ("[" * 100_000, "line 2: no JSON"),
        ("[1]", "line 2: no object with one member"),
        ('{"host":{},"repo":{}}', "line 2: no object with one member"),
        ('{"job":{}}', "line 2: there are no lines of the kind 'job'"),
        ('{"host":1}', "line 2: there are no lines of the kind 'host'"),
        (FIRST, "line 2: an export begins with one line"),
        ('"' + "x" * MAX_LINE, f"line 2: it has more than {MAX_LINE} bytes"),
        (changed(HOST, status=...), "line 2: a host without status"),
        (changed(HOST, status=7), "line 2: status of a host cannot be 7"),
        (changed(HOST, first_seen_at=True), "line 2: first_seen_at of a host cannot be true"),
        (changed(HOST, first_seen_at=1.5), "line 2: first_seen_at of a host cannot be 1.5"),
        (changed(HOST, origin=""), "line 2: origin of a host cannot be"),
        (changed(HOST, colour="red"), "line 2: a host has no 'colour' here: the line is of a later version"),
        (changed(HOST, crawl_job="token"), "line 2: a host has no 'crawl_job' here"),
        (changed(HOST, owner="subscriber-1"), "line 2: a host's owner is '-', or absent"),
        (changed(REPO, active="yes"), "line 2: active of a repo cannot be"),
        (changed(REPO, collections=3), "line 2: collections of a repo cannot be 3"),
        (RECORD, "line 2: a record stands behind its repo, and the last repo is none"),
        (LISTING, "line 2: a listing stands behind its repo"),
        (changed(BAN, kind="audit"), "line 2: a state of the kind 'audit' does not move"),
    ],
)
def test_a_foreign_line_is_refused(file: Path, line: Any, why: str) -> None:
    with pytest.raises(BadFile) as refused:
        check(written(file, line) if line else empty_line(file))
    assert str(refused.value).startswith(why)


def empty_line(file: Path) -> Path:
    file.write_text(json.dumps(FIRST) + "\n\n")
    return file


def test_a_record_of_another_repo_is_refused(file: Path) -> None:
    other = changed(RECORD, did="did:plc:other")
    with pytest.raises(BadFile, match=f"line 3: a record stands behind its repo, and the last repo is {DID}"):
        check(written(file, REPO, other))


@pytest.mark.parametrize(
    ("first", "why"),
    [
        ({"export": {"format": 2}}, "line 1: the format is 2, this version reads 1: take a later one"),
        ({"export": {"format": "1"}}, "line 1: the format is '1', this version reads 1"),
        (HOST, "line 1: an export begins with one line that says its format"),
        ("did,collection", "line 1: no JSON"),
    ],
)
def test_another_format_is_refused(file: Path, first: Any, why: str) -> None:
    file.write_text((first if isinstance(first, str) else json.dumps(first)) + "\n")
    with pytest.raises(BadFile) as refused:
        check(file)
    assert str(refused.value).startswith(why)


def test_a_file_that_was_cut_off_is_refused(file: Path) -> None:
    whole = written(file, HOST, REPO, RECORD).read_bytes()
    lines = whole.splitlines(keepends=True)
    for count in range(len(lines)):
        file.write_bytes(b"".join(lines[:count]))
        with pytest.raises(BadFile, match=f"after line {count}: the end is missing"):
            check(file)
        file.write_bytes(b"".join(lines[:count]) + lines[count][:-1])
        with pytest.raises(BadFile, match=f"line {count + 1}: it is cut off"):
            check(file)


def test_a_file_with_a_line_more_or_less_is_refused(file: Path) -> None:
    with pytest.raises(BadFile, match="line 3: 4 lines should be before it, and 2 are"):
        check(written(file, HOST, end={"end": {"lines": 4}}))
    with pytest.raises(BadFile, match="line 4: there is something after the end"):
        check(written(file, HOST, {"end": {"lines": 2}}, end=HOST))
