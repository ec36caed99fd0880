# SPDX-License-Identifier: Apache-2.0
"""The image `python`: Debian's Python 3 with NumPy, pandas and Matplotlib."""

import debian_image

# pandas needs NumPy. Matplotlib needs fontTools, whose package would take SciPy, and with that a compiler, for the first of two
# alternatives; munkres is the other.
PACKAGES = ["python3", "python3-pandas", "python3-matplotlib", "python3-munkres"]
# Removed before they are tried: what only other tools of fontTools use, and pandas' own tests, more than half of its package.
WORKS = """
dpkg --purge --force-depends python3-sympy python3-mpmath python3-fs python3-lxml libxslt1.1 libxml2 libicu72 unicode-data
rm -r /usr/lib/python3/dist-packages/pandas/tests
python3 -c '
import numpy, pandas
assert abs(numpy.linalg.inv(numpy.eye(3) * 2).sum() - 1.5) < 1e-9, "NumPy miscomputes"
table = pandas.DataFrame({"group": [1, 1, 2], "value": [1, 2, 4]})
assert table.groupby("group").sum().value.tolist() == [3, 4], "pandas miscomputes"
import io, matplotlib.pyplot
picture = io.BytesIO()
table.plot().figure.savefig(picture, format="png")
assert picture.getvalue().startswith(b"\\x89PNG"), "Matplotlib draws nothing"
'
"""


def make(folder):
    return debian_image.make(folder, "python", PACKAGES, "python3", ["sh", "-e", "-c", WORKS])
