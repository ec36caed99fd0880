# SPDX-License-Identifier: Apache-2.0
"""images.json: other names for images, registries without verified TLS, certificates of registries; and msb-vmm with references."""

import json

import pytest
from conftest import MSB_VMM
from registry.certificates import make_authority, make_certificate
from registry.content import write_layout
from registry.fault_proxy import FaultProxy


@pytest.fixture(scope="module")
def strange(tmp_path_factory):
    """An authority that the environment does not know, and a certificate of it."""
    directory = tmp_path_factory.mktemp("strange")
    authority = make_authority(directory)
    return authority, make_certificate(directory, authority)


def settle(msb, **document):
    msb.settings.mkdir()
    (msb.settings / "images.json").write_text(json.dumps(document))


def test_another_name_stands_for_an_image(bed, msb, small):
    settle(msb, aliases={"tools/small": f"{bed.registry.address}/small"})
    assert msb.pull("tools/small")["reference"] == f"{bed.registry.address}/{small.name}"
    msb.done("image", "inspect", "tools/small:latest")


def test_a_registry_is_settled_to_be_insecure(bed, msb, small):
    with bed.proxy(tls=False) as proxy:
        settle(msb, insecure_registries=[proxy.address])
        msb.pull(f"{proxy.address}/{small.name}")


def test_a_registry_is_trusted_by_a_certificate_of_its_own(bed, msb, small, strange):
    authority, certificate = strange
    with FaultProxy(bed.registry, certificate) as proxy:
        settle(msb, certificates={proxy.address: str(authority.certificate)})
        msb.pull(f"{proxy.address}/{small.name}")
        # The others are trusted as before, and by nothing more.
        msb.pull(f"{bed.registry.address}/{small.name}")
    with FaultProxy(bed.registry, certificate) as other:
        msb.refused("pull", f"{other.address}/{small.name}", words=[other.address, "certificate"])


@pytest.mark.parametrize("document", [{"aliases": []}, {"alias": {}}, {"insecure_registries": ["a b"]}, {"certificates": {"x.test": 3}}])
def test_settings_that_are_none_are_refused_by_their_file(bed, msb, small, document):
    settle(msb, **document)
    msb.refused("pull", f"{bed.registry.address}/{small.name}", words=["images.json"])


# msb-vmm


def test_msb_vmm_prepares_an_image_that_is_not_here_by_pulling_it(bed, msb, small):
    reference = f"{bed.registry.address}/{small.name}"
    result = msb("prepare", "--image", reference, program=MSB_VMM)
    assert (result.returncode, result.stdout) == (0, b""), result.stderr
    assert msb.references() == [reference]
    assert msb.pull(reference)["upToDate"] is True


def test_msb_vmm_runs_what_is_here_without_asking_a_registry(msb, small, proxy):
    reference = f"{proxy.address}/{small.name}"
    msb.pull(reference)
    proxy.requests.clear()
    for name in (reference, small.digest, small.digest.partition(":")[2][:12]):
        result = msb("prepare", "--image", name, program=MSB_VMM)
        assert result.returncode == 0, result.stderr
    assert proxy.requests == []


def test_msb_vmm_names_an_image_that_cannot_be_had(bed, msb):
    reference = f"{bed.registry.address}/absent:v1"
    result = msb("prepare", "--image", reference, program=MSB_VMM)
    assert result.returncode == 125
    last = result.stderr.decode().splitlines()[-1]
    assert last.startswith("msb-vmm: ") and reference in last


@pytest.mark.parametrize("name", ["./absent", "../absent", "/absent/layout:tag"])
def test_what_starts_like_a_path_is_never_asked_for_in_a_registry(msb, name):
    result = msb("prepare", "--image", name, program=MSB_VMM)
    assert result.returncode == 125
    [line] = result.stderr.decode().splitlines()
    assert line.startswith("msb-vmm: ") and name.partition(":")[0] in line


def test_a_folder_does_not_stand_in_for_an_image_to_msb(msb, small, tmp_path, monkeypatch):
    write_layout(tmp_path / "localhost:1/x", {"latest": small})
    monkeypatch.chdir(tmp_path)
    msb.refused("image", "inspect", "localhost:1/x", words=["localhost:1/x"])
