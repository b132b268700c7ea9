#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Fails on every #include in src/ that the table in docs/rooms.md does not let its room have."""

import pathlib
import re
import sys

INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*(["<])([^">]+)[">]', re.MULTILINE)
# The standard library (no dot), C's and the system's headers, and what every room may use.
ANYWHERE = re.compile(r"[a-z_0-9]+|(std\w+|string|math|time|errno|float|limits|signal)\.h"
                      r"|(unistd|fcntl|pthread|sched|termios|poll|dirent|cpuid|immintrin)\.h"
                      r"|(sys|linux|asm)/\w+\.h|fmt/\w+\.h")
TESTS_ONLY = ("gtest/", "gmock/")


def read_table(text):
    """{room: (rooms it may import, prefixes of other projects' headers)} of the table's rows."""
    table = {}
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if not line.startswith("|") or len(cells) < 3 or not re.fullmatch(r"[a-z]+", cells[0]):
            continue
        if cells[0] != "room":
            table[cells[0]] = (cells[1].split(), tuple(cells[2].split()))
    return table


def room_of(path):
    """The room that a path under src/ lies in; files that lie in none are main's."""
    return path.parts[0] if len(path.parts) > 1 else "main"


def is_allowed(path, room, header, table):
    """Whether the file at `path`, in `room`, may include `header`."""
    rooms, prefixes = table[room]
    target = header.split("/")[0]
    if "/" in header and target in table:
        return target == room or target in rooms
    if path.stem.endswith("_test") or path.stem.startswith("testing_"):
        prefixes += TESTS_ONLY
    return header.startswith(prefixes) or bool(ANYWHERE.fullmatch(header))


def violations(source, table):
    """Yields a sentence for each forbidden include, and for each folder that is no room."""
    for path in sorted(source.rglob("*")):
        if path.suffix not in (".cc", ".c", ".h"):
            continue
        path = path.relative_to(source)
        room = room_of(path)
        if room not in table:
            yield f"src/{path}: docs/rooms.md has no room '{room}'"
            continue
        text = (source / path).read_text(encoding="utf-8")
        for match in INCLUDE.finditer(text):
            if not is_allowed(path, room, match[2], table):
                line = text.count("\n", 0, match.start(2)) + 1
                yield f"src/{path}:{line}: room '{room}' may not include {match[2]}"


def main():
    root = pathlib.Path(__file__).resolve().parent.parent
    table = read_table((root / "docs" / "rooms.md").read_text(encoding="utf-8"))
    found = list(violations(root / "src", table))
    for sentence in found:
        print(sentence)
    if not table:
        print("docs/rooms.md has no table of rooms")
    return 1 if found or not table else 0


if __name__ == "__main__":
    sys.exit(main())
