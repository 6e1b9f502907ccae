"""What uv is told of pip's settings."""

import pytest

import pip_settings

LISTING = r"""
:env:.find-links='/wheels /more'
:env:.default-timeout='15.5'
:env:.pre=''
global.find-links='/ignored'
global.index-url='https://mirror.example/simple'
global.extra-index-url='\nhttps://one.example/simple\nhttps://two.example/simple'
install.constraint='/a.txt /b.txt'
install.trusted-host='mirror.example one.example:8080'
global.pre='yes'
download.find-links='/for-another-command'
"""


@pytest.fixture
def clean(monkeypatch):
    """An environment without settings of pip or uv."""
    for name in list(pip_settings.os.environ):
        if name.startswith(("PIP_", "UV_")) or "CA_BUNDLE" in name or name == "SSL_CERT_FILE":
            monkeypatch.delenv(name)
    return monkeypatch


def test_later_sources_replace_earlier_ones():
    settings = pip_settings.merge_listing(LISTING)
    assert settings["find-links"] == "/wheels /more"
    assert settings["constraint"] == "/a.txt /b.txt"
    assert pip_settings.is_on(settings, "pre")  # an empty variable counts as absent


def test_listing_is_said_to_uv(clean, tmp_path):
    settings = pip_settings.merge_listing(LISTING)
    settings["find-links"] = f"{tmp_path} /missing\nhttps://wheels.example/torch.html"
    told = pip_settings.environment_for_uv(settings)
    assert told["UV_DEFAULT_INDEX"] == "https://mirror.example/simple"
    assert told["UV_INDEX"] == "https://one.example/simple https://two.example/simple"
    assert told["UV_FIND_LINKS"] == f"{tmp_path},https://wheels.example/torch.html"
    assert told["UV_INSECURE_HOST"] == "mirror.example one.example:8080"
    assert told["UV_INDEX_STRATEGY"] == "unsafe-best-match"
    assert told["UV_HTTP_TIMEOUT"] == "16"
    assert told["UV_PRERELEASE"] == "allow"
    assert pip_settings.flags_for_uv(settings) == [
        *("--constraints", "/a.txt"),
        *("--constraints", "/b.txt"),
    ]


@pytest.mark.parametrize(("value", "flags"), [("1", ["--no-index"]), ("false", []), ("", [])])
def test_no_index(clean, value, flags):
    assert pip_settings.flags_for_uv({"no-index": value}) == flags


def test_certificates_and_proxy(clean):
    settings = {"cert": "~/mine.pem", "proxy": "http://proxy.example:3128", "client-cert": "/c.pem"}
    told = pip_settings.environment_for_uv(settings)
    assert told["SSL_CERT_FILE"] == pip_settings.os.path.expanduser("~/mine.pem")
    assert told["SSL_CLIENT_CERT"] == "/c.pem"
    assert told["HTTPS_PROXY"] == told["https_proxy"] == "http://proxy.example:3128"
    clean.setenv("REQUESTS_CA_BUNDLE", "/company.pem")
    assert pip_settings.environment_for_uv({})["SSL_CERT_FILE"] == "/company.pem"


def test_builds_from_source_are_forbidden_as_pip_is_told(clean):
    flags = pip_settings.flags_for_uv({"only-binary": ":all:", "no-binary": "one,two"})
    assert flags == [
        *("--only-binary", ":all:"),
        *("--no-binary", "one"),
        *("--no-binary", "two"),
    ]


def test_variables_of_the_user_stay(clean):
    settings = {"index-url": "https://a.example/simple", "extra-index-url": "https://b.example"}
    clean.setenv("UV_INDEX_URL", "https://mine.example/simple")
    clean.setenv("UV_INDEX", "https://more.example/simple")
    clean.setenv("UV_CONSTRAINT", "/mine.txt")
    clean.setenv("UV_INDEX_STRATEGY", "first-index")
    told = pip_settings.environment_for_uv(settings)
    assert "UV_DEFAULT_INDEX" not in told
    assert told["UV_INDEX"] == "https://more.example/simple"
    assert told["UV_INDEX_STRATEGY"] == "first-index"
    assert pip_settings.flags_for_uv({"constraint": "/pip.txt"}) == ["--constraints", "/mine.txt"]
