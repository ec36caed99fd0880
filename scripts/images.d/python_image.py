# SPDX-License-Identifier: Apache-2.0
"""The image `python`: Debian's Python 3 with NumPy."""

import debian_image

NUMPY_WORKS = ("import numpy; "
               "assert abs(numpy.linalg.inv(numpy.eye(3) * 2).sum() - 1.5) < 1e-9, 'NumPy miscomputes'")


def make(folder):
    return debian_image.make(folder, "python", ["python3", "python3-numpy"], "python3",
                             ["python3", "-c", NUMPY_WORKS])
