# SPDX-License-Identifier: Apache-2.0
"""`cmake --install`: it runs from where it was put, with the source tree gone."""

import subprocess

from conftest import IMAGES, REPOSITORY


def test_it_runs_from_where_it_was_installed(sandboxes):
    prefix = sandboxes.directory / "usr"
    subprocess.run(["cmake", "--install", REPOSITORY / "build/release", "--prefix", prefix], check=True, capture_output=True, timeout=120)
    installed = sorted(str(path.relative_to(prefix)) for path in prefix.rglob("*") if not path.is_dir() and "/doc/" not in str(path))
    assert installed == ["bin/msb", "bin/msb-machine", "bin/msb-registry", "bin/msb-server", "bin/msb-vmm", "bin/msi", "bin/msx",
                         "share/bash-completion/completions/msb", "share/fish/vendor_completions.d/msb.fish",
                         "share/microsandbox/initramfs.cpio", "share/microsandbox/vmlinux", "share/zsh/site-functions/_msb"]
    home = sandboxes.directory / "fresh"
    environment = sandboxes.environment | {"MSB_HOME": str(home), "PATH": f"{prefix}/bin:/usr/bin:/bin"}
    subprocess.run(["msb", "load", "-q", "-i", f"{IMAGES}:base", "--name", "base"], env=environment, check=True, timeout=120)
    hidden = f"mount -t tmpfs none '{REPOSITORY}' && cd / && msx base -- sh -c 'echo from $(uname -r)' </dev/null"
    result = subprocess.run(["unshare", "--mount", "--map-root-user", "sh", "-c", hidden], env=environment, capture_output=True,
                            timeout=150, check=False)
    assert result.returncode == 0 and b"-msb" in result.stdout, (result.stdout, result.stderr)
