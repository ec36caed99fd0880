# SPDX-License-Identifier: Apache-2.0
"""The image `node`: Debian's Node.js, with the certificate authorities that its HTTPS trusts."""

import debian_image

NODE_WORKS = "if (new Intl.NumberFormat('de').format(1.5) !== '1,5') throw new Error('no data of ICU')"


def make(folder):
    return debian_image.make(folder, "node", ["nodejs", "ca-certificates"], "node", ["node", "-e", NODE_WORKS])
