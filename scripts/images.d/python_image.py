# SPDX-License-Identifier: Apache-2.0
"""The image `python`: Debian's Python 3 with NumPy and pandas."""

import debian_image

PACKAGES = ["python3", "python3-pandas"]  # which needs NumPy
# pandas' own tests, more than half of its package, are removed before it is tried.
WORKS = """
rm -r /usr/lib/python3/dist-packages/pandas/tests
python3 -c '
import numpy, pandas
assert abs(numpy.linalg.inv(numpy.eye(3) * 2).sum() - 1.5) < 1e-9, "NumPy miscomputes"
table = pandas.DataFrame({"group": [1, 1, 2], "value": [1, 2, 4]})
assert table.groupby("group").sum().value.tolist() == [3, 4], "pandas miscomputes"
'
"""


def make(folder):
    return debian_image.make(folder, "python", PACKAGES, "python3", ["sh", "-e", "-c", WORKS])
