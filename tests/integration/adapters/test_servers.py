"""The servers of others that tests talk to do what those tests rely on."""

from __future__ import annotations

import os
import ssl
import subprocess
from contextlib import closing
from urllib.request import urlopen

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from fault_proxy import Fault, FlipSentByte
from servers import ProgramMissing, TokenRequest, debian_program

pytestmark = pytest.mark.integration


@pytest.fixture
def skopeo():
    """Run skopeo to its end."""
    try:
        program = debian_program("skopeo")
    except ProgramMissing as error:
        pytest.skip(str(error))

    def run(*arguments):
        return subprocess.run([program, *map(str, arguments)], capture_output=True, text=True, check=False)

    return run


@pytest.fixture
def image(tmp_path):
    """A small image as an OCI layout."""
    try:
        program = debian_program("umoci")
    except ProgramMissing as error:
        pytest.skip(str(error))
    content, layout = tmp_path / "content", tmp_path / "layout"
    content.write_bytes(os.urandom(300_000))
    subprocess.run([program, "init", "--layout", layout], check=True)
    subprocess.run([program, "new", "--image", f"{layout}:x"], check=True)
    insert = [program, "insert", "--rootless", "--image", f"{layout}:x", content, "/models/content"]
    subprocess.run(insert, check=True)
    return f"oci:{layout}:x"


def test_moto_answers_206_and_refuses_to_overwrite(moto):
    s3 = boto3.client(
        "s3", endpoint_url=moto, region_name="us-east-1", aws_access_key_id="any", aws_secret_access_key="any",
        config=Config(s3={"addressing_style": "path"}),
    )  # fmt: skip
    with closing(s3):
        s3.create_bucket(Bucket="moto-answers")
        s3.put_object(Bucket="moto-answers", Key="x", Body=b"0123456789")
        part = s3.get_object(Bucket="moto-answers", Key="x", Range="bytes=2-4")
        assert (part["ResponseMetadata"]["HTTPStatusCode"], part["ContentRange"]) == (206, "bytes 2-4/10")
        assert part["Body"].read() == b"234"
        with pytest.raises(ClientError, match="PreconditionFailed"):
            s3.put_object(Bucket="moto-answers", Key="x", Body=b"other", IfNoneMatch="*")


def test_an_image_goes_to_the_registry_and_its_blobs_are_files(registry, image, skopeo, tmp_path):
    pushed = skopeo("copy", "--dest-tls-verify=false", image, f"docker://{registry.host}/plain/x:1")
    assert pushed.returncode == 0, pushed.stderr
    digest = skopeo("inspect", "--tls-verify=false", "--format={{.Digest}}", f"docker://{registry.host}/plain/x:1")
    assert registry.blob(digest.stdout.strip()).exists()


def test_the_registry_refuses_a_byte_flipped_on_the_way(registry, image, skopeo, fault_proxy):
    proxy = fault_proxy(registry.url)
    proxy.add(Fault(FlipSentByte(1000), method="PATCH"))
    to = f"docker://{proxy.url.removeprefix('http://')}/flipped/x:1"
    pushed = skopeo("copy", "--dest-tls-verify=false", image, to)
    assert pushed.returncode != 0
    assert "digest" in pushed.stderr
    proxy.clear()
    pushed = skopeo("copy", "--dest-tls-verify=false", image, to)
    assert pushed.returncode == 0, pushed.stderr


@pytest.mark.parametrize("secret", ["right", "wrong"])
def test_the_registry_with_a_password_wants_the_right_one(registry_with_password, image, skopeo, secret):
    server = registry_with_password
    name = f"{server.user}:{server.password if secret == 'right' else 'another'}"
    to = f"docker://{server.host}/password/x:1"
    pushed = skopeo("copy", "--dest-tls-verify=false", f"--dest-creds={name}", image, to)
    assert (pushed.returncode == 0) == (secret == "right"), pushed.stderr
    assert skopeo("inspect", "--tls-verify=false", to).returncode != 0  # nobody comes in without a name


def test_the_registry_with_tls_has_a_certificate_of_its_own_authority(registry_with_tls):
    known = ssl.create_default_context(cafile=str(registry_with_tls.ca))
    known.verify_flags |= ssl.VERIFY_X509_STRICT
    with urlopen(f"{registry_with_tls.url}/v2/", context=known) as answer:
        assert answer.status == 200
    with pytest.raises(OSError, match="CERTIFICATE_VERIFY_FAILED"):
        urlopen(f"{registry_with_tls.url}/v2/")


def test_the_registry_with_tokens_lets_the_nameless_pull_only(registry_with_token, token_server, image, skopeo):
    server, to = registry_with_token, f"docker://{registry_with_token.host}/token/x:1"
    assert skopeo("copy", "--dest-tls-verify=false", image, to).returncode != 0
    wrong = skopeo("copy", "--dest-tls-verify=false", f"--dest-creds={server.user}:another", image, to)
    assert "wrong name or password" in wrong.stderr
    name = f"{server.user}:{server.password}"
    pushed = skopeo("copy", "--dest-tls-verify=false", f"--dest-creds={name}", image, to)
    assert pushed.returncode == 0, pushed.stderr
    assert skopeo("inspect", "--tls-verify=false", to).returncode == 0
    assert TokenRequest(("repository:token/x:pull,push",), server.user) in token_server.asked
