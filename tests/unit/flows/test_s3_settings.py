"""S3 settings from an environment: the AWS variables, KServe's own, data connections; and never a key in a message."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from modelberth.base.errors import UsageError
from modelberth.flows.s3_settings import S3Settings, resolve_source, settings_from_environment

KEYS = {"AWS_ACCESS_KEY_ID": "AKIACANARY01", "AWS_SECRET_ACCESS_KEY": "canary-secret-02"}
NOTHING = S3Settings(
    endpoint=None, region=None, access_key="", secret_key="", session_token="",
    verify=True, virtual_host=None, anonymous=False, bucket="",
)  # fmt: skip
# What odh-model-controller writes for a data connection (secret_controller.go, newStorageSecret).
CONNECTION = {
    "type": "s3",
    "access_key_id": "AKIACANARY03",
    "secret_access_key": "canary-secret-04",
    "endpoint_url": "https://minio.storage.svc:9000",
    "bucket": "models",
    "region": "eu-west-1",
    "cabundle_configmap": "odh-kserve-custom-ca-bundle",
}


def read(**environment: str) -> S3Settings:
    """The settings of an environment."""
    return settings_from_environment(environment)


def connected(*without: str, **changes: Any) -> str:
    """STORAGE_CONFIG of a data connection."""
    return json.dumps({key: value for key, value in {**CONNECTION, **changes}.items() if key not in without})


def said(error: UsageError) -> str:
    """All that an error says."""
    parts: list[object] = [error.what, error.where, error.why, error.next_step, error, repr(error), error.__cause__]
    return " ".join(map(str, parts))


# --- the AWS variables -------------------------------------------------------------------------------------


def test_an_empty_environment_leaves_everything_to_the_aws_chain():
    assert read() == NOTHING


def test_variables_that_are_set_to_nothing_say_nothing():
    names = ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "S3_VERIFY_SSL", "STORAGE_CONFIG")
    assert settings_from_environment(dict.fromkeys(names, " ")) == NOTHING


def test_a_role_of_the_service_account_is_left_to_the_aws_chain():
    settings = read(
        AWS_ROLE_ARN="arn:aws:iam::1:role/models", AWS_WEB_IDENTITY_TOKEN_FILE="/var/run/token", AWS_REGION="eu-west-1"
    )
    assert (settings.access_key, settings.secret_key, settings.region) == ("", "", "eu-west-1")


def test_keys_come_with_their_session_token():
    settings = read(**KEYS, AWS_SESSION_TOKEN="token")
    assert (settings.access_key, settings.secret_key, settings.session_token) == (*KEYS.values(), "token")


def test_a_token_without_keys_is_not_taken():
    assert read(AWS_SESSION_TOKEN="token") == NOTHING


@pytest.mark.parametrize("name", KEYS)
def test_half_a_pair_of_keys_is_refused(name):
    with pytest.raises(UsageError, match="only one of AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"):
        settings_from_environment({name: KEYS[name]})


def test_the_line_end_that_echo_leaves_in_a_secret_is_taken_off():
    settings = settings_from_environment({name: f"{value}\n" for name, value in KEYS.items()})
    assert (settings.access_key, settings.secret_key) == tuple(KEYS.values())


@pytest.mark.parametrize("inside", ["\n", "\r\n", "\0", "\x1b"])
def test_a_character_that_no_header_can_hold_is_refused_here(inside):
    with pytest.raises(UsageError, match="AWS_SECRET_ACCESS_KEY holds characters that cannot be printed"):
        read(AWS_ACCESS_KEY_ID="key", AWS_SECRET_ACCESS_KEY=f"canary{inside}secret")


def test_keys_are_ascii():
    with pytest.raises(UsageError, match="characters that no key has"):
        read(AWS_ACCESS_KEY_ID="key", AWS_SECRET_ACCESS_KEY="schlüssel")


def test_the_endpoint_for_s3_alone_wins_over_the_one_for_all():
    both = {"AWS_ENDPOINT_URL": "http://all:1", "AWS_ENDPOINT_URL_S3": "http://s3:2"}
    assert settings_from_environment(both).endpoint == "http://s3:2"


def test_the_region_that_kserve_sets_wins_over_the_one_of_the_node():
    assert read(AWS_REGION="us-west-2", AWS_DEFAULT_REGION="eu-west-1").region == "eu-west-1"


# --- KServe's variables ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variables", "endpoint"),
    [
        ({"S3_ENDPOINT": "minio:9000"}, "https://minio:9000"),
        ({"S3_ENDPOINT": "minio:9000", "S3_USE_HTTPS": "1"}, "https://minio:9000"),
        ({"S3_ENDPOINT": "minio:9000", "S3_USE_HTTPS": "0"}, "http://minio:9000"),
        ({"S3_ENDPOINT": "http://minio:9000"}, "http://minio:9000"),
        ({"S3_ENDPOINT": "HTTP://minio:9000", "S3_USE_HTTPS": "0"}, "HTTP://minio:9000"),
        ({"S3_ENDPOINT": "minio:9000", "AWS_ENDPOINT_URL": "http://other:1"}, "http://other:1"),
        ({"S3_USE_HTTPS": "0"}, None),
        ({"AWS_S3_ENDPOINT": "http://data-connection:9000"}, "http://data-connection:9000"),
    ],
)
def test_an_endpoint_without_scheme_gets_the_one_that_is_said(variables, endpoint):
    assert settings_from_environment(variables).endpoint == endpoint


def test_an_endpoint_that_contradicts_its_scheme_is_refused():
    with pytest.raises(UsageError, match="S3_ENDPOINT and S3_USE_HTTPS contradict"):
        read(S3_ENDPOINT="https://minio:9000", S3_USE_HTTPS="0")


@pytest.mark.parametrize("name", ["awsAnonymousCredential", "AWS_ANONYMOUS_CREDENTIAL"])
def test_anonymous_requests_have_no_keys_even_where_a_secret_gives_some(name):
    settings = settings_from_environment({**KEYS, "AWS_SESSION_TOKEN": "token", name: "true"})
    assert settings.anonymous
    assert (settings.access_key, settings.secret_key, settings.session_token) == ("", "", "")


@pytest.mark.parametrize(("text", "meant"), [("true", True), ("1", True), ("False", False), ("0", False)])
@pytest.mark.parametrize("name", ["S3_USER_VIRTUAL_BUCKET", "S3_USE_VIRTUAL_BUCKET"])
def test_both_spellings_of_virtual_host_are_read(name, text, meant):
    assert settings_from_environment({name: text}).virtual_host is meant


def test_the_global_address_of_aws_needs_virtual_hosts_for_other_regions():
    assert read(AWS_ENDPOINT_URL="https://s3.amazonaws.com", AWS_DEFAULT_REGION="eu-west-1").virtual_host is True
    assert read(AWS_ENDPOINT_URL="https://s3.amazonaws.com", AWS_DEFAULT_REGION="us-east-1").virtual_host is None


@pytest.mark.parametrize(
    "names",
    [("S3_USER_VIRTUAL_BUCKET", "S3_USE_VIRTUAL_BUCKET"), ("awsAnonymousCredential", "AWS_ANONYMOUS_CREDENTIAL")],
)
def test_two_names_that_contradict_each_other_are_refused(names):
    with pytest.raises(UsageError, match=f"{names[0]} and {names[1]} contradict"):
        settings_from_environment(dict(zip(names, ("true", "false"), strict=True)))


@pytest.mark.parametrize("name", ["S3_VERIFY_SSL", "S3_USER_VIRTUAL_BUCKET", "awsAnonymousCredential"])
def test_a_flag_that_is_neither_yes_nor_no_is_refused(name):
    with pytest.raises(UsageError, match=f"{name} is neither true nor false"):
        settings_from_environment({name: "canary-maybe"})


@pytest.mark.parametrize(
    ("variables", "verify"),
    [
        ({}, True),
        ({"S3_VERIFY_SSL": "1"}, True),
        ({"S3_VERIFY_SSL": "0"}, False),
        ({"S3_VERIFY_SSL": "0", "AWS_CA_BUNDLE": "/ca.pem"}, False),
        ({"AWS_CA_BUNDLE": "/ca.pem"}, "/ca.pem"),
        ({"CA_BUNDLE_CONFIGMAP_NAME": "ca"}, "/etc/ssl/custom-certs/cabundle.crt"),
        ({"CA_BUNDLE_CONFIGMAP_NAME": "ca", "CA_BUNDLE_VOLUME_MOUNT_POINT": "/certs"}, "/certs/cabundle.crt"),
        ({"CA_BUNDLE_CONFIGMAP_NAME": "ca", "AWS_CA_BUNDLE": "/ca.pem"}, "/ca.pem"),
        ({"CA_BUNDLE_VOLUME_MOUNT_POINT": "/certs"}, True),
    ],
)
def test_the_certificate_is_checked_against_what_kserve_mounts(variables, verify):
    assert settings_from_environment(variables).verify == verify


# --- data connections --------------------------------------------------------------------------------------


def test_a_data_connection_of_openshift_ai_is_read():
    assert read(STORAGE_CONFIG=connected()) == S3Settings(
        endpoint="https://minio.storage.svc:9000", region="eu-west-1", access_key="AKIACANARY03",
        secret_key="canary-secret-04", session_token="", verify=True, virtual_host=None, anonymous=False,
        bucket="models",
    )  # fmt: skip


def test_a_data_connection_wins_over_variables_and_their_session_token():
    settings = read(
        **KEYS, AWS_SESSION_TOKEN="token", AWS_ENDPOINT_URL_S3="http://other:1", AWS_REGION="us-west-2",
        AWS_S3_BUCKET="other", STORAGE_CONFIG=connected(),
    )  # fmt: skip
    assert settings == read(STORAGE_CONFIG=connected())


def test_what_a_data_connection_leaves_empty_comes_from_the_variables():
    settings = read(
        **KEYS, AWS_ENDPOINT_URL="http://minio:9000",
        STORAGE_CONFIG=connected(access_key_id="", secret_access_key="", endpoint_url="", region=None),
    )  # fmt: skip
    assert (settings.access_key, settings.endpoint, settings.region) == ("AKIACANARY01", "http://minio:9000", None)


def test_parameters_of_the_service_win_over_its_data_connection():
    settings = read(STORAGE_CONFIG=connected(), STORAGE_OVERRIDE_CONFIG='{"bucket": "mine", "type": "s3"}')
    assert (settings.bucket, settings.region) == ("mine", "eu-west-1")


def test_parameters_of_the_service_serve_without_a_data_connection():
    assert read(STORAGE_OVERRIDE_CONFIG='{"bucket": "mine", "type": "s3"}').bucket == "mine"


def test_flags_and_the_ca_file_of_a_data_connection_are_read():
    settings = read(**KEYS, STORAGE_CONFIG=connected(anonymous="True", verify_ssl="0", ca_bundle="/ca.pem"))
    assert (settings.anonymous, settings.access_key, settings.verify) == (True, "", False)
    assert read(STORAGE_CONFIG=connected(ca_bundle="/ca.pem", verify_ssl=True)).verify == "/ca.pem"


@pytest.mark.parametrize("text", ["{}", "null-is-no-object", '["s3"]', "{", '{"type": "s3"', "[" * 100_000])
def test_a_data_connection_that_cannot_be_read_is_refused(text):
    if text == "{}":
        assert read(STORAGE_CONFIG=text) == NOTHING
        return
    with pytest.raises(UsageError, match="STORAGE_CONFIG is not"):
        read(STORAGE_CONFIG=text)


@pytest.mark.parametrize("changes", [{"type": "hdfs"}, {"type": ""}, {"type": None}])
def test_a_data_connection_for_another_kind_of_store_is_refused(changes):
    with pytest.raises(UsageError, match="STORAGE_CONFIG is not for S3"):
        read(STORAGE_CONFIG=connected(**changes))


@pytest.mark.parametrize("key", ["access_key_id", "secret_access_key"])
def test_half_a_pair_in_a_data_connection_is_not_completed_from_variables(key):
    with pytest.raises(UsageError, match="STORAGE_CONFIG has only one of"):
        read(**KEYS, STORAGE_CONFIG=connected(key))


@pytest.mark.parametrize("value", [7, 1.5, ["canary"], {"canary": 1}])
def test_a_value_that_is_no_text_is_refused_by_its_key(value):
    with pytest.raises(UsageError, match="STORAGE_CONFIG key 'region' is not text") as caught:
        read(STORAGE_CONFIG=connected(region=value))
    assert "canary" not in said(caught.value)


# --- the source --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("uri", "resolved"),
    [
        ("s3://own/prefix/", "s3://own/prefix/"),
        ("<scheme-placeholder>://llm/a/", "s3://models/llm/a/"),
        ("<scheme-placeholder>:///llm/a", "s3://models/llm/a"),
        ("oci://registry.example/a:1", "oci://registry.example/a:1"),
    ],
)
def test_only_an_address_without_scheme_takes_the_bucket_of_the_data_connection(uri, resolved):
    assert resolve_source(uri, read(STORAGE_CONFIG=connected())) == resolved


def test_an_address_without_any_bucket_is_refused():
    with pytest.raises(UsageError, match="names none"):
        resolve_source("<scheme-placeholder>://llm/a/", NOTHING)


# --- secrets -----------------------------------------------------------------------------------------------

MARK = "c4n4ry"
SECRETS = st.builds(lambda text: f"{MARK}{text}{MARK}", st.text(max_size=20))
ENVIRONMENTS = st.dictionaries(
    st.sampled_from(
        [
            *KEYS, "AWS_SESSION_TOKEN", "STORAGE_CONFIG", "STORAGE_OVERRIDE_CONFIG", "S3_VERIFY_SSL", "S3_USE_HTTPS",
            "S3_USER_VIRTUAL_BUCKET", "awsAnonymousCredential",
        ]
    ),
    st.one_of(
        SECRETS,
        SECRETS.map(lambda secret: secret[:-1] + "\n" + MARK),
        st.builds(
            lambda secret, keys: json.dumps({"type": "s3", **dict.fromkeys(keys, secret)}),
            SECRETS | st.lists(SECRETS, min_size=1),
            st.lists(st.sampled_from([*CONNECTION, "anonymous", "verify_ssl", "a key of no one"])),
        ),
        SECRETS.map(lambda secret: json.dumps({"type": "s3", "secret_access_key": secret})[:-1]),
        SECRETS.map(lambda secret: json.dumps([secret])),
        st.just("true"),
    ),
)  # fmt: skip


@given(ENVIRONMENTS)
@example({"STORAGE_CONFIG": '{"type": "c4n4ry"}'})
@example({"STORAGE_CONFIG": '{"type": "s3", "secret_access_key": "c4n4ry"'})
@example({"AWS_ACCESS_KEY_ID": "c4n4ry", "AWS_SECRET_ACCESS_KEY": "c4n4ry", "AWS_SESSION_TOKEN": "c4n4ry"})
def test_no_error_quotes_a_value(environment):
    errors = []
    try:
        settings_from_environment(environment)
    except UsageError as error:
        errors.append(error)
    assert all(MARK not in said(error) and error.__suppress_context__ | (error.__context__ is None) for error in errors)


@given(SECRETS, SECRETS, SECRETS)
@example("", f"{MARK}@{MARK}", f"{MARK}@{MARK}")
@example("", f"{MARK}/{MARK}", f"{MARK}?{MARK}@{MARK}")
def test_a_repr_shows_no_key(access, secret, token):
    settings = S3Settings(
        endpoint=f"https://user:{secret}@minio:9000/?token={token}", region="eu-west-1", access_key=access,
        secret_key=secret, session_token=token, verify=True, virtual_host=None, anonymous=False, bucket="models",
    )  # fmt: skip
    for text in (repr(settings), str(settings), f"{settings}"):
        assert MARK not in text
        assert "models" in text


@pytest.mark.parametrize(
    ("endpoint", "shown"),
    [
        ("https://minio:9000", "https://minio:9000"),
        ("http://[::1]:9000/path", "http://[::1]:9000"),
        ("https://user:c4n4ry@minio:9000/path?token=c4n4ry", "https://minio:9000"),
        ("https://user:12/c4n4ry@minio:9000", "an endpoint that is no URL"),
        ("c4n4ry", "an endpoint that is no URL"),
        ("http://user:c4n4ry", "an endpoint that is no URL"),
        (None, "endpoint of the AWS chain"),
    ],
)
def test_a_repr_names_the_store(endpoint, shown):
    settings = S3Settings(endpoint, None, "", "", "", True, None, False, "")
    assert repr(settings).startswith(f"S3Settings({shown}, None, keys of the AWS chain")
