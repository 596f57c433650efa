"""The llama.cpp library: loaded once, quiet, with its complaints kept; models opened; what devices there are."""

from __future__ import annotations

import ctypes
import logging
import os
import re
import threading
from collections import deque
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

from agentbudget.errors import MissingDependency, WeightsError

_log = logging.getLogger(__name__)

_SPINS: Final = "20000"
"""How long GNU OpenMP's threads spin for one another, some tens of microseconds, before they let others have the
processor: as fast as its default on an idle machine, and two to three times as fast on a busy one. Read at load."""
ALL_LAYERS: Final = 0x7FFFFFFF
_CPU_DEVICE: Final = 0
_ACCELERATOR: Final = 3
"""A library for the CPU (BLAS, AMX): no memory of its own."""
_ERROR_LEVEL: Final = 4
_CPUINFO: Final = Path("/proc/cpuinfo")
_GCC: Final = re.compile(rb"GCC: \([^)]*\) ([0-9]+)\.([0-9]+)")
_complaints: deque[str] = deque(maxlen=4)


class _Library:
    api: Any = None
    lock = threading.Lock()
    log_callback: Any = None

    @classmethod
    def load(cls) -> Any:
        os.environ.setdefault("GOMP_SPINCOUNT", _SPINS)
        try:
            import llama_cpp
        except ImportError as error:
            raise MissingDependency(
                f"local models run on llama-cpp-python ({error}): pip install 'agentbudget-runtime[local]'"
            ) from error
        api: Any = llama_cpp
        cls.log_callback = api.llama_log_callback(_on_log)
        api.llama_log_set(cls.log_callback, ctypes.c_void_p(0))
        api.llama_backend_init()
        cls.api = api
        return api


def library() -> Any:
    """The C API of llama.cpp, as llama-cpp-python wraps it. Raises `MissingDependency`."""
    if (api := _Library.api) is None:
        with _Library.lock:
            api = _Library.api or _Library.load()
    return api


def _on_log(level: int, text: bytes, _user: object) -> None:
    """Keep what llama.cpp says off the terminal; errors are remembered for the exception to come."""
    line = text.decode("utf-8", "replace").strip()
    if level == _ERROR_LEVEL and line:
        _complaints.append(line)
    _log.debug("%s", line)


def forget_complaints() -> None:
    """Before a call whose complaints are wanted."""
    _complaints.clear()


def complaints() -> str:
    """What llama.cpp last complained of."""
    return "; ".join(_complaints) or "no reason given"


def version() -> str:
    """Of llama-cpp-python, and with it of llama.cpp: what is saved by one version is not read by another."""
    return str(library().__version__)


def open_model(path: Path, *, vocabulary_only: bool = False, gpu_layers: int = 0) -> Any:
    """The model at `path`; raises `WeightsError` with llama.cpp's own words."""
    api = library()
    if not path.is_file():
        raise WeightsError(f"there are no weights at {path}; see what there is: agentbudget models list")
    params = api.llama_model_default_params()
    params.vocab_only = vocabulary_only
    params.n_gpu_layers = gpu_layers
    params.use_extra_bufts = not has_broken_amx()
    forget_complaints()
    model = api.llama_model_load_from_file(os.fsencode(path), params)
    if not model:
        raise WeightsError(
            f"llama.cpp cannot read {path}: {complaints()}. It is not a GGUF file, or "
            "it is broken or too new: fetch it anew (agentbudget models pull NAME --force)"
        )
    return model


@cache
def has_broken_amx() -> bool:
    """Whether this build would end the process at its first matrix product on processors with AMX.

    GCC before 12.4 and 13.3 forgets most of what the instruction that sets the tiles up reads (its bug 114098). Without
    the buffers that AMX needs, llama.cpp computes with AVX-512: right, and a prompt takes longer.
    """
    api = library()
    if b"AMX_INT8 = 1" not in api.llama_print_system_info() or not _has_amx():
        return False
    path = Path(api.__file__).parent / "lib" / "libggml-cpu.so"
    return path.is_file() and breaks_amx(path.read_bytes())


def breaks_amx(binary: bytes) -> bool:
    """Whether a library was compiled by a GCC with that bug, by what it says of its compiler."""
    found = _GCC.search(binary)
    if found is None:
        return False
    version = (int(found[1]), int(found[2]))
    return version < (12, 4) or (13,) <= version < (13, 3)


def _has_amx() -> bool:
    return _CPUINFO.is_file() and " amx_int8" in _CPUINFO.read_text()


@dataclass(frozen=True, slots=True)
class Device:
    """A GPU that this build of llama.cpp can use."""

    name: str
    free_bytes: int
    total_bytes: int


def devices() -> tuple[Device, ...]:
    """The GPUs that layers can be offloaded to; none where llama.cpp was built without."""
    api = library()
    if not api.llama_supports_gpu_offload():
        return ()
    from llama_cpp import _ggml

    ggml: Any = _ggml.libggml
    ggml.ggml_backend_dev_count.restype = ctypes.c_size_t
    ggml.ggml_backend_dev_get.restype = ctypes.c_void_p
    ggml.ggml_backend_dev_get.argtypes = [ctypes.c_size_t]
    handles = [ggml.ggml_backend_dev_get(n) for n in range(ggml.ggml_backend_dev_count())]
    return tuple(_device(ggml, handle) for handle in handles if _is_gpu(ggml, handle))


def _is_gpu(ggml: Any, handle: int) -> bool:
    ggml.ggml_backend_dev_type.argtypes = [ctypes.c_void_p]
    return _CPU_DEVICE < ggml.ggml_backend_dev_type(handle) < _ACCELERATOR


def _device(ggml: Any, handle: int) -> Device:
    ggml.ggml_backend_dev_description.argtypes = [ctypes.c_void_p]
    ggml.ggml_backend_dev_description.restype = ctypes.c_char_p
    ggml.ggml_backend_dev_memory.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p]
    free, total = ctypes.c_size_t(), ctypes.c_size_t()
    ggml.ggml_backend_dev_memory(handle, ctypes.byref(free), ctypes.byref(total))
    return Device(ggml.ggml_backend_dev_description(handle).decode("utf-8", "replace"), free.value, total.value)


def grammar_sampler(vocabulary: Any, gbnf: str) -> Any:
    """llama.cpp's automaton of a grammar, None if it does not take it (see `complaints`)."""
    forget_complaints()
    return library().llama_sampler_init_grammar(vocabulary, gbnf.encode(), b"root")
