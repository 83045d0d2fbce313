# SPDX-License-Identifier: Apache-2.0
"""One table of what was measured, and which goals were met."""


class Report:
    """Collects rows and prints them."""

    def __init__(self):
        self._rows = []

    def row(self, what, figure, goal, met):
        """A figure beside its goal."""
        self._add(what, figure, goal, "met" if met else "MISSED")

    def left_out(self, what, why):
        """What could not be run."""
        self._add(what, why, "", "LEFT OUT")

    def _add(self, *row):
        self._rows.append(tuple(" ".join(str(cell).split()) for cell in row))
        print("{:9} {}: {} ({})".format(row[3], *row[:3]), flush=True)

    def missed(self):
        """How many goals were missed."""
        return sum(row[3] == "MISSED" for row in self._rows)

    def print(self):
        """Prints the table."""
        rows = [("what", "figure", "goal", "met"), *self._rows]
        widths = [max(len(row[column]) for row in rows) for column in range(4)]
        print()
        for row in rows:
            print("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip())
