"""What an upload Job starts, started here: its arguments and environment lead to a delivery, by references alone."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest

from modelberth.manifests.upload_jobs import uploads
from stacks import stack_data, stack_of

pytestmark = pytest.mark.integration


class Pod:
    """The pod of the stack's one upload Job, with folders of this machine where it has volumes."""

    def __init__(self, berth, s3, root: Path, source: str, secrets: dict[str, dict[str, str]]) -> None:
        self.berth, self.root, self.secrets = berth, root, secrets
        self.store = s3.store()
        data = stack_data(delivery={"image": "quay.io/acme/berth:1", "hubToken": {"secret": "hf-token"}})
        data["storage"]["s3"] |= {"endpoint": s3.server.endpoint, "bucket": self.store.bucket}
        data["models"][0]["variants"][1] |= {"source": source, "weights": f"s3://{self.store.bucket}/mistral"}
        (upload,) = uploads(stack_of(data))
        (job,) = upload.objects
        self.spec = job["spec"]["template"]["spec"]
        (self.container,) = self.spec["containers"]

    def run(self):
        """The container, to its end."""
        folders = {each["mountPath"]: self._mounted(each["name"]) for each in self.container["volumeMounts"]}

        def here(text: str) -> str:
            found = next((path for path in folders if text == path or text.startswith(f"{path}/")), None)
            return f"{folders[found]}{text.removeprefix(found)}" if found else text

        environment = {}
        for each in self.container["env"]:
            value = each["value"] if "value" in each else self._referenced(each["valueFrom"]["secretKeyRef"])
            if value is not None:
                environment[each["name"]] = here(value)
        (program,) = self.container["command"]
        assert program == "berth"
        # What no pod has: the session token of the tests' own environment.
        return self.berth(*map(here, self.container["args"]), AWS_SESSION_TOKEN="", **environment)

    def _referenced(self, reference: dict) -> str | None:
        found = self.secrets.get(reference["name"], {}).get(reference["key"])
        assert found is not None or reference["optional"]
        return found

    def _mounted(self, name: str) -> Path:
        folder = self.root / name
        folder.mkdir(exist_ok=True)
        (volume,) = [each for each in self.spec["volumes"] if each["name"] == name]
        for item in volume.get("secret", {}).get("items", []):
            (folder / item["path"]).write_text(self.secrets[volume["secret"]["secretName"]][item["key"]])
        return folder

    @property
    def delivered(self) -> set[str]:
        """What is at the destination."""
        return {key.removeprefix("mistral/") for key in self.store.sizes("mistral/")}


def keys_of(s3) -> dict[str, str]:
    return {"AWS_ACCESS_KEY_ID": s3.server.keys.access_key, "AWS_SECRET_ACCESS_KEY": s3.server.keys.secret_key}


def test_an_image_behind_a_login_is_shipped_to_the_store_and_once_only(
    berth, s3, registry_with_password, model, hashes, tmp_path
):
    registry, folder = registry_with_password, model("w4a16")
    login = base64.b64encode(f"{registry.user}:{registry.password}".encode()).decode()
    logins = json.dumps({"auths": {registry.host: {"auth": login}}})
    (tmp_path / "auth.json").write_text(logins)
    image = f"oci://{registry.host}/images/job:1.0"
    pushed = berth("modelcar", "push", folder, image, REGISTRY_AUTH_FILE=str(tmp_path / "auth.json"))
    assert pushed.returncode == 0, pushed.stderr
    secrets = {"minio-connection": keys_of(s3), "quay-pull": {".dockerconfigjson": logins}}
    pod = Pod(berth, s3, tmp_path, image, secrets)
    done = pod.run()
    assert done.returncode == 0, done.stderr
    assert set(hashes(folder)) <= pod.delivered
    assert ".modelberth/manifest.json" in pod.delivered
    before = pod.store.listing("mistral/").modified
    assert pod.run().returncode == 0
    assert pod.store.listing("mistral/").modified == before
    assert registry.password not in done.stdout + done.stderr


def test_keys_that_the_store_does_not_know_end_the_job(berth, s3, model, tmp_path):
    source = s3.store()
    shipped = berth("ship", model("w4a16"), f"s3://{source.bucket}/there/", "--endpoint", s3.server.endpoint,
                    AWS_SESSION_TOKEN="", **keys_of(s3))  # fmt: skip
    assert shipped.returncode == 0, shipped.stderr
    address = f"s3://{source.bucket}/there/"
    wrong = {"AWS_ACCESS_KEY_ID": "AKIAWRONG", "AWS_SECRET_ACCESS_KEY": "wrong"}
    assert Pod(berth, s3, tmp_path, address, {"minio-connection": wrong}).run().returncode == 4
    right = Pod(berth, s3, tmp_path, address, {"minio-connection": keys_of(s3)})
    assert right.run().returncode == 0
    assert ".modelberth/manifest.json" in right.delivered
