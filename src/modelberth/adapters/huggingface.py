"""The Hugging Face Hub: which files a repository has at a revision, and ranges of their bytes.

Token, session and settings are those of the library `huggingface_hub`, so HF_TOKEN, the token file, HF_ENDPOINT,
HF_HUB_OFFLINE and proxies mean here what they mean everywhere. Requests and answers are handled here: the library
takes answers of any length, waits for as long as a server asks it to, and writes warnings of its own.
"""

from __future__ import annotations

import json
import os
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from urllib.parse import quote, urlsplit

import httpx2
from huggingface_hub import constants, errors, get_session, get_token

from modelberth import __version__
from modelberth.adapters.http_messages import Answer, Request, Sink, is_range, range_header, wrong_range
from modelberth.adapters.transport import Wire
from modelberth.base.errors import AuthError, BerthError, IntegrityError, RemoteUnavailable, UsageError
from modelberth.spec.addresses import HubAddress

_TIMEOUT = httpx2.Timeout(30.0, connect=10.0)
_PAUSES = (0.25, 0.5, 1.0)
_TRY_AGAIN = {408, 500, 502, 503, 504}
_TRANSIENT = (httpx2.TimeoutException, httpx2.NetworkError, httpx2.RemoteProtocolError)
_MAX_LISTING = 16 << 20
_ELSEWHERE = "give a folder or a config.json instead"
_NEEDS_TOKEN = "private and gated repositories need a token: set HF_TOKEN, or run 'hf auth login'"  # noqa: S105


class HubRepository:
    """One model repository at one revision; the commit is looked up once, and everything is read from that commit.

    Args:
        address: the repository and the branch, tag or commit; the default branch where it names none.
        endpoint: URL of the Hub; HF_ENDPOINT or the public one where it is empty.
        stall_seconds: how long nothing may move before a connection is given up.
    """

    def __init__(self, address: HubAddress, endpoint: str = "", stall_seconds: float = 30.0) -> None:
        self._address = address
        self._endpoint = (endpoint or os.environ.get("HF_ENDPOINT") or constants.ENDPOINT).rstrip("/")
        self._shown = _without_user(self._endpoint)
        self._commit = ""
        self._sha256: dict[str, str] = {}
        self._wire = Wire(verify=os.environ.get("REQUESTS_CA_BUNDLE") or True, stall_seconds=stall_seconds)
        self._lock = threading.Lock()
        self._transferred = 0

    @property
    def transferred(self) -> int:
        """Bytes of all answers so far, the list of files among them."""
        return self._transferred

    def sizes(self) -> dict[str, int]:
        """Sizes in bytes of all files, by path.

        Raises:
            UsageError: no such repository or revision, as far as we may know.
            AuthError: the Hub refuses us.
            RemoteUnavailable: no answer, offline mode, or an answer that is not the Hub's.
        """
        url = f"{self._endpoint}/api/models/{self._address.repository}"
        if self._address.revision:
            url += f"/revision/{quote(self._address.revision, safe='')}"
        content = self._get(f"{url}?blobs=true", {"Accept": "application/json"}, "", self._listing)
        try:
            answer = json.loads(content)
            commit, files = answer["sha"], {item["rfilename"]: item.get("size") for item in answer["siblings"]}
            self._sha256 = {item["rfilename"]: _declared(item) for item in answer["siblings"]}
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            raise self._no_hub("its answer is not the description of a repository") from None
        if not isinstance(commit, str) or not re.fullmatch(r"[\w.-]+", commit, re.ASCII):
            raise self._no_hub("its answer names no commit")
        if not all(type(size) is int and size >= 0 and isinstance(path, str) for path, size in files.items()):
            raise self._no_hub("its answer does not say how large the files are")
        self._commit = commit
        return files

    @property
    def commit(self) -> str:
        """The commit that everything is read from; known once `sizes` has asked."""
        return self._commit

    def sha256(self, path: str) -> str:
        """The SHA-256 that the Hub declares of a file that `sizes` lists; empty for small files, which have none."""
        return self._sha256.get(path, "")

    def close(self) -> None:
        """Give up the connections of `read_into`."""
        self._wire.close()

    def read_into(self, path: str, offset: int, length: int, sink: Sink) -> None:
        """A range of a file into a sink; after a broken connection it goes on where it was.

        Raises:
            IntegrityError: the answer is another range, or shorter.
            AuthError: the repository is gated, or the token is refused.
            RemoteUnavailable, NotReady: no answer after retries, or one that is not the Hub's.
        """
        url, token, done = self._file_url(path), self._token(), 0
        where = f"{self._where}/{path}"

        def take(chunk: memoryview) -> None:
            nonlocal done
            if done + len(chunk) > length:
                raise IntegrityError("the Hugging Face Hub sends more than it was asked for", where=where)
            done += len(chunk)
            sink(chunk)

        def attempt() -> Answer:
            at, left = offset + done, length - done
            headers = {"User-Agent": f"modelberth/{__version__}", "Range": range_header(at, left)}
            if token:
                headers["Authorization"] = f"Bearer {token}"
            return self._wire.get(Request("GET", url, headers), lambda answer: is_range(answer, at, left), take)

        if length == 0:
            return
        answer = self._wire.patiently(attempt, where=where, what="the Hugging Face Hub")
        if done == length:
            return
        if answer.is_page:
            raise self._no_hub("it answers with a page where a file should be")
        self._check(answer.status, answer.headers, path, bool(token))
        raise wrong_range(answer, offset + done, length - done, where)

    def _file_url(self, path: str) -> str:
        return f"{self._endpoint}/{self._address.repository}/resolve/{self._commit}/{quote(path)}"

    def read(self, path: str, offset: int, length: int) -> bytes:
        """These bytes of a file that `sizes` lists.

        Raises:
            IntegrityError: the answer is another range, or shorter.
            AuthError: the repository is gated, or the token is refused.
            RemoteUnavailable: no answer after retries, or one that is not the Hub's.
        """
        if length == 0:
            return b""
        headers = {"Range": range_header(offset, length)}
        return self._get(
            self._file_url(path), headers, path, lambda response: self._range(response, path, offset, length)
        )

    def _get(self, url: str, headers: dict[str, str], path: str, take: Callable[[httpx2.Response], bytes]) -> bytes:
        """One request, tried again while the Hub fails; `take` reads the answer."""
        token = self._token()
        # Bytes as they are: a range of a compressed answer is no range of the file.
        headers = {"User-Agent": f"modelberth/{__version__}", "Accept-Encoding": "identity", **headers}
        if token:
            headers["Authorization"] = f"Bearer {token}"
        for pause in (*_PAUSES, None):
            try:
                with get_session().stream("GET", url, headers=headers, timeout=_TIMEOUT) as response:
                    if response.status_code not in _TRY_AGAIN or pause is None:
                        self._check(response.status_code, response.headers, path, bool(token))
                        return take(response)
            except errors.OfflineModeIsEnabled:
                raise self._unavailable(
                    "offline mode is on", "HF_HUB_OFFLINE forbids requests", f"unset HF_HUB_OFFLINE, or {_ELSEWHERE}"
                ) from None
            except _TRANSIENT as error:
                if pause is None:
                    raise self._unavailable("the Hugging Face Hub does not answer", type(error).__name__) from None
            # No text of an error is passed on, and no chain of them: a header that cannot be sent is quoted there.
            except (httpx2.HTTPError, httpx2.InvalidURL, OSError, ValueError) as error:
                raise self._unavailable("the Hugging Face Hub cannot be asked", type(error).__name__) from None
            time.sleep(pause)
        raise AssertionError("the last attempt returns or raises")

    def _token(self) -> str | None:
        if constants.HF_HUB_DISABLE_IMPLICIT_TOKEN:
            return None
        try:
            token = get_token()
        except (OSError, ValueError, httpx2.HTTPError, errors.OIDCError) as error:
            raise AuthError(
                "the token for the Hugging Face Hub cannot be read",
                where=self._shown,
                why=type(error).__name__,
                next_step="set HF_TOKEN, or run 'hf auth login'",
            ) from None
        if token and not re.fullmatch(r"[!-~]+", token):
            raise AuthError(
                "the token for the Hugging Face Hub has characters that no token has",
                where=self._shown,
                next_step="set HF_TOKEN to the token alone, or run 'hf auth login'",
            )
        return token

    def _listing(self, response: httpx2.Response) -> bytes:
        content = bytearray()
        for chunk in self._chunks(response):
            content += chunk
            if len(content) > _MAX_LISTING:
                raise self._no_hub(f"the description of the repository has more than {_MAX_LISTING:,} bytes")
        return bytes(content)

    def _range(self, response: httpx2.Response, path: str, offset: int, length: int) -> bytes:
        if "text/html" in response.headers.get("Content-Type", "").lower():
            raise self._no_hub("it answers with a page where a file should be")
        skip = offset
        if response.status_code == 206:
            expected, answered = f"bytes {offset}-{offset + length - 1}/", response.headers.get("Content-Range", "")
            if not answered.startswith(expected):
                raise self._broken(path, "another range than asked came back", f"asked for {expected.rstrip('/')}")
            skip = 0
        # Otherwise a mirror that knows no ranges: the file from its start, of which no more is read than needed.
        content, seen = bytearray(), 0
        for chunk in self._chunks(response):
            content += chunk[max(0, skip - seen) :]
            seen += len(chunk)
            if len(content) >= length:
                return bytes(content[:length])
        raise self._broken(path, "the file is shorter than it is listed", f"{seen:,} bytes came")

    def _chunks(self, response: httpx2.Response) -> Iterator[bytes]:
        if response.headers.get("Content-Encoding", "identity").lower() not in {"", "identity"}:
            raise self._no_hub("it compresses what should come as it is")
        for chunk in response.iter_raw():
            with self._lock:
                self._transferred += len(chunk)
            yield chunk

    def _check(self, status: int, headers: Mapping[str, str], path: str, with_token: bool) -> None:
        """Raise what a status means. The Hub says more in headers than in the status; the body is not read.

        Args:
            status: of the answer.
            headers: by lower-case name.
            path: of the file; empty for the repository itself.
            with_token: whether we said who we are.
        """
        code = headers.get("x-error-code", "")
        if status in {200, 206}:
            return
        if status in {401, 403}:
            raise self._refused(code, headers.get("x-error-message", ""), with_token)
        if status == 429:
            step = "try again later" if with_token else "set HF_TOKEN: who is signed in may ask more often"
            raise self._unavailable(
                "the Hugging Face Hub wants fewer requests", "status 429", f"{step}, or {_ELSEWHERE}"
            )
        if status == 416:
            raise self._broken(path, "the file is shorter than it is listed", "status 416")
        if code == "RevisionNotFound":
            raise self._missing(f"{self._address.repository} has no revision '{self._address.revision}'")
        if code == "EntryNotFound" or (status == 404 and path and code != "RepoNotFound"):
            raise self._broken(path, "the file is listed and not there", f"status {status}")
        if status == 404 and "text/html" in headers.get("content-type", "").lower():
            raise self._no_hub("it answers with a page, status 404")
        if status == 404:
            raise self._missing("there is no such repository on the Hugging Face Hub")
        if status in _TRY_AGAIN or status > 500:
            raise self._unavailable("the Hugging Face Hub failed after retries", f"status {status}")
        raise self._no_hub(f"it answers with status {status}")

    def _refused(self, code: str, said: str, with_token: bool) -> BerthError:
        repository = self._address.repository
        if code == "GatedRepo":
            step = f"accept its conditions at {self._shown}/{repository}"
            step += " as the owner of the token" if with_token else ", then set HF_TOKEN or run 'hf auth login'"
            return AuthError(f"{repository} is gated", where=self._where, why=_NEEDS_TOKEN, next_step=step)
        # Without a token the Hub says 401 for what does not exist too, in these words or with this code.
        if code == "RepoNotFound" or (not with_token and said == "Invalid username or password."):
            return self._missing("there is no such repository on the Hugging Face Hub")
        if with_token:
            why = "the token is not valid, or it does not allow this"
            step = "set HF_TOKEN to a token that may read this repository, or run 'hf auth login'"
            return AuthError("the Hugging Face Hub refused the token", where=self._where, why=why, next_step=step)
        return AuthError(
            "the Hugging Face Hub refused this",
            where=self._where,
            why=_NEEDS_TOKEN,
            next_step="set HF_TOKEN, or run 'hf auth login'",
        )

    @property
    def _where(self) -> str:
        return f"{self._shown} {self._address}"

    def _missing(self, what: str) -> UsageError:
        return UsageError(what, where=self._where, why=_NEEDS_TOKEN, next_step=f"correct the name, or {_ELSEWHERE}")

    def _broken(self, path: str, what: str, why: str) -> IntegrityError:
        return IntegrityError(what, where=f"{self._where}/{path}", why=why, next_step="try again, or " + _ELSEWHERE)

    def _no_hub(self, why: str) -> RemoteUnavailable:
        return self._unavailable(
            "this does not answer as a Hugging Face Hub does", why, f"check HF_ENDPOINT, or {_ELSEWHERE}"
        )

    def _unavailable(self, what: str, why: str, next_step: str = "") -> RemoteUnavailable:
        step = next_step or f"check the network, HF_ENDPOINT and proxies, or {_ELSEWHERE}"
        return RemoteUnavailable(what, where=self._where, why=why, next_step=step)


def _declared(item: dict[str, Any]) -> str:
    """The SHA-256 that a listing gives of a large file (LFS); empty where it gives none."""
    lfs = item.get("lfs")
    text = lfs.get("sha256") if isinstance(lfs, dict) else None
    return text if isinstance(text, str) and re.fullmatch("[0-9a-f]{64}", text) else ""


def _without_user(url: str) -> str:
    """A URL for messages: without the user and the password that it may carry."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "HF_ENDPOINT"
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()
