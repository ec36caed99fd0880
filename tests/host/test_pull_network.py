# SPDX-License-Identifier: Apache-2.0
"""Who is talked to, and how: certificates, registries that are explicitly insecure, proxies of the environment."""

import pytest
from registry.bed import PASSWORD, USER
from registry.certificates import make_authority, make_certificate
from registry.connect_proxy import ConnectProxy
from registry.fault_proxy import FaultProxy
from test_pull_auth import know


@pytest.fixture(scope="module")
def strange(tmp_path_factory):
    """A certificate of an authority that nobody trusts."""
    directory = tmp_path_factory.mktemp("strange")
    return make_certificate(directory, make_authority(directory))


def test_a_certificate_of_an_unknown_authority_is_refused(bed, msb, small, strange):
    with FaultProxy(bed.registry, strange) as proxy:
        msb.refused("pull", f"{proxy.address}/{small.name}", words=[proxy.address, "certificate"])
        assert proxy.requests == []


def test_a_certificate_for_another_name_is_refused(bed, msb, small):
    with ConnectProxy({"other.test:443": bed.registry.port}) as connect:
        msb.environment["HTTPS_PROXY"] = connect.url
        msb.refused("pull", f"other.test/{small.name}", words=["other.test", "certificate"])


def test_without_an_authority_of_ours_the_systems_are_asked(bed, msb, small):
    del msb.environment["SSL_CERT_FILE"]
    msb.refused("pull", f"{bed.registry.address}/{small.name}", words=[bed.registry.address, "certificate"])


def test_an_insecure_registry_is_pulled_from_when_it_is_said_to_be_one(bed, msb, small, strange):
    with FaultProxy(bed.registry, strange) as proxy:
        msb.pull(f"{proxy.address}/{small.name}", "--insecure")


def test_a_registry_without_tls_is_refused_unless_it_is_said_to_be_insecure(bed, msb, small):
    with bed.proxy(tls=False) as proxy:
        msb.refused("pull", f"{proxy.address}/{small.name}", words=[proxy.address, "TLS", "insecure"])
        assert proxy.requests == []
        msb.pull(f"{proxy.address}/{small.name}", "--insecure")


def test_nothing_listens(msb):
    msb.refused("pull", "localhost:1/x", words=["localhost:1"])


def test_a_name_that_nobody_knows(msb):
    msb.refused("pull", "registry.invalid/x", words=["registry.invalid"])


@pytest.mark.parametrize("variable", ["HTTPS_PROXY", "https_proxy", "ALL_PROXY"])
def test_a_proxy_of_the_environment_is_used(bed, msb, small, variable):
    with ConnectProxy({"registry.test:443": bed.registry.port}) as connect:
        msb.environment[variable] = connect.url
        assert msb.pull(f"registry.test/{small.name}")["digest"] == small.digest
        assert connect.count("CONNECT", "registry.test:443") >= 1


def test_hosts_of_no_proxy_are_talked_to_directly(bed, msb, small):
    with ConnectProxy({}) as connect:
        msb.environment |= {"HTTPS_PROXY": connect.url, "NO_PROXY": "elsewhere.test,localhost"}
        msb.pull(f"{bed.registry.address}/{small.name}")
        assert connect.requests == []


def test_a_proxy_sees_no_secret_of_the_registry(bed, msb, small):
    with ConnectProxy({"registry.test:443": bed.basic.port}) as connect:
        msb.environment["HTTPS_PROXY"] = connect.url.replace("//", "//proxy-user:proxy-word@")
        know(msb, "registry.test")
        msb.pull(f"registry.test/{small.name}")
        assert connect.requests
        for request in connect.requests:
            assert "authorization" not in request.headers
            assert "proxy-authorization" in request.headers


def test_a_proxy_that_refuses_is_named_without_its_password(msb, small):
    with ConnectProxy({}) as connect:
        msb.environment["HTTPS_PROXY"] = connect.url.replace("//", "//proxy-user:proxy-word@")
        sentence = msb.refused("pull", f"registry.test/{small.name}", words=["registry.test", "proxy", "403"])
        assert connect.count("CONNECT") == 1
        assert "proxy-word" not in sentence


def test_login_to_an_insecure_registry_takes_saying_so(bed, msb, strange):
    with FaultProxy(bed.basic, strange) as proxy:
        arguments = ["-u", USER, "--password-stdin", proxy.address]
        msb.refused("login", *arguments, stdin=PASSWORD.encode(), words=[proxy.address, "certificate"])
        msb.done("login", "--insecure", *arguments, stdin=PASSWORD.encode())
