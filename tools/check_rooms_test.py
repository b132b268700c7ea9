# SPDX-License-Identifier: Apache-2.0
"""Tests of check_rooms.py on small trees of sources."""

import pathlib
import tempfile
import unittest

import check_rooms

TABLE = """
| room | may import | other projects' headers | what it does |
|---|---|---|---|
| main | top | | |
| top | ground | lib/ thing.h | |
| ground | | | |
"""


class CheckRoomsTest(unittest.TestCase):
    def found(self, path, text):
        """The sentences about a source tree of one file."""
        with tempfile.TemporaryDirectory() as folder:
            source = pathlib.Path(folder) / path
            source.parent.mkdir(parents=True, exist_ok=True)
            source.write_text(text, encoding="utf-8")
            return list(check_rooms.violations(pathlib.Path(folder),
                                               check_rooms.read_table(TABLE)))

    def test_a_room_may_include_itself_what_its_row_says_and_the_system(self):
        text = ('#include "top/b.h"\n#include "ground/c.h"\n#include <lib/x/y.h>\n'
                '#include "thing.h"\n#include <vector>\n#include <cstdint>\n#include <sys/mman.h>\n'
                '  #  include <fmt/format.h>\n// #include "nowhere.h"\n')
        self.assertEqual(self.found("top/a.cc", text), [])

    def test_a_room_above_is_refused_with_file_and_line(self):
        self.assertEqual(self.found("ground/sub/a.h", '#pragma once\n#include "top/a.h"\n'),
                         ["src/ground/sub/a.h:2: room 'ground' may not include top/a.h"])

    def test_a_header_of_another_project_is_refused_where_the_row_has_none(self):
        for header in ("<lib/x.h>", '"thing.h"', "<boost/asio.hpp>", '"b.h"', '"./b.h"'):
            with self.subTest(header):
                self.assertEqual(len(self.found("ground/a.cc", f"#include {header}\n")), 1)

    def test_only_tests_may_include_the_test_framework(self):
        text = "#include <gtest/gtest.h>\n"
        self.assertEqual(self.found("ground/a_test.cc", text), [])
        self.assertEqual(len(self.found("ground/a.cc", text)), 1)

    def test_a_test_may_not_reach_further_than_its_room(self):
        self.assertEqual(len(self.found("ground/a_test.cc", '#include "top/a.h"\n')), 1)

    def test_a_folder_without_a_row_is_no_room(self):
        self.assertEqual(self.found("attic/a.cc", ""),
                         ["src/attic/a.cc: docs/rooms.md has no room 'attic'"])

    def test_files_in_no_folder_are_mains(self):
        self.assertEqual(self.found("main.cc", '#include "top/a.h"\n'), [])
        self.assertEqual(len(self.found("main.cc", '#include "ground/a.h"\n')), 1)


if __name__ == "__main__":
    unittest.main()
