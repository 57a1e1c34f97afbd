"""One measurement of a Python package of llama.cpp in a process of its own, by the steps of measure-peer.mjs.

python measure-python-peer.py '{"engine", "path", "threads", "prompt", "warm", "tokens", "repack"}'

Prints { prefill, decode, version, uses } in tokens a second. It goes through the packages' bindings of llama.cpp's C
functions: their classes for chats do more than compute. `repack` (ik_llama.cpp only): rows interleaved while loading.
"""

import ctypes
import importlib.metadata
import json
import re
import sys
import time

import numpy as np

FIRST_TOKEN = 300  # as in the other measurements: none of the special ones at a vocabulary's beginning


class IkLlama:
    """ik_llama.cpp as ik-llama-cpp-python ships it."""

    package = "ik-llama-cpp-python"

    def __init__(self, path, threads, context, repack):
        from ik_llama_cpp import _ctypes_api as api

        self.api = api
        api.llama_backend_init()
        params = api.llama_model_default_params()
        params.n_gpu_layers = 0
        params.use_mmap = not repack  # what is rewritten cannot stay in the file's pages
        params.repack_tensors = repack
        self.model = api.llama_model_load_from_file(path.encode(), params)
        if not self.model:
            raise RuntimeError(f"{path} was not loaded")
        params = api.llama_context_default_params()
        params.n_ctx = context
        params.n_batch = params.n_ubatch = 512
        params.n_threads = params.n_threads_batch = threads
        params.flash_attn = True
        self.context = api.llama_init_from_model(self.model, params)
        if not self.context:
            raise RuntimeError("no context was made")
        self.vocab_size = api.llama_vocab_n_tokens(api.llama_model_get_vocab(self.model))
        self.batch = api.llama_batch_init(512, 0, 1)
        self.position = 0

    def clear(self):
        self.api.llama_kv_cache_clear(self.context)
        self.position = 0

    def decode(self, ids):
        """Logits behind the last of at most 512 ids."""
        batch = self.batch
        batch.n_tokens = len(ids)
        for i, token in enumerate(ids):
            batch.token[i] = token
            batch.pos[i] = self.position + i
            batch.n_seq_id[i] = 1
            batch.seq_id[i][0] = 0
            batch.logits[i] = i == len(ids) - 1
        check(self.api.llama_decode(self.context, batch))
        self.position += len(ids)
        logits = self.api.llama_get_logits_ith(self.context, len(ids) - 1)
        return np.ctypeslib.as_array(logits, (self.vocab_size,))

    def system_info(self):
        function = self.api._lib.llama_print_system_info
        function.restype = ctypes.c_char_p
        return function().decode()


class SyncLlama:
    """llama.cpp as llama-cpp-py-sync ships it."""

    package = "llama-cpp-py-sync"

    def __init__(self, path, threads, context, repack):
        from llama_cpp_py_sync import _cffi_bindings as bindings

        self.ffi, self.lib = bindings.get_ffi(), bindings.get_lib()
        self.lib.llama_backend_init()
        params = self.lib.llama_model_default_params()
        params.n_gpu_layers = 0
        self.model = self.lib.llama_model_load_from_file(path.encode(), params)
        if self.model == self.ffi.NULL:
            raise RuntimeError(f"{path} was not loaded")
        params = self.lib.llama_context_default_params()
        params.n_ctx = context
        params.n_batch = params.n_ubatch = 512
        params.n_threads = params.n_threads_batch = threads
        params.flash_attn_type = self.lib.LLAMA_FLASH_ATTN_TYPE_ENABLED
        self.context = self.lib.llama_init_from_model(self.model, params)
        if self.context == self.ffi.NULL:
            raise RuntimeError("no context was made")
        self.vocab_size = self.lib.llama_vocab_n_tokens(self.lib.llama_model_get_vocab(self.model))

    def clear(self):
        self.lib.llama_memory_clear(self.lib.llama_get_memory(self.context), True)

    def decode(self, ids):
        """Logits behind the last of at most 512 ids."""
        tokens = self.ffi.new("llama_token[]", ids)
        check(self.lib.llama_decode(self.context, self.lib.llama_batch_get_one(tokens, len(ids))))
        logits = self.lib.llama_get_logits_ith(self.context, -1)
        return np.frombuffer(self.ffi.buffer(logits, 4 * self.vocab_size), np.float32)

    def system_info(self):
        return self.ffi.string(self.lib.llama_print_system_info()).decode()


ENGINES = {kind.package: kind for kind in (IkLlama, SyncLlama)}


def check(status):
    if status != 0:
        raise RuntimeError(f"llama_decode answered {status}")


def instruction_sets(info):
    """What the build computes with, from a line such as `CPU : SSE3 = 1 | AVX2 = 1 |`."""
    names = re.findall(r"(\w+) = 1\b", info)
    return [name for name in names if re.match(r"AVX|FMA|F16C|NEON|DOTPROD|MATMUL_INT8|SVE|SME|AMX", name)]


def must_be_numbers(logits):
    """A file whose blocks decode to nonsense would be fast or slow for the wrong reason."""
    if not np.isfinite(logits).all() or logits.std() == 0:
        raise RuntimeError("the logits are no numbers, or all the same")


def measure(engine, prompt, warm, tokens):
    spread = engine.vocab_size - FIRST_TOKEN
    ids = [FIRST_TOKEN + (i * 7919) % spread for i in range(prompt)]
    # Once for nothing: the first pass also faults the weights in.
    for part in (ids[:warm], [FIRST_TOKEN]):
        must_be_numbers(engine.decode(part))
    engine.clear()

    start = time.perf_counter()
    for at in range(0, prompt, 512):
        engine.decode(ids[at : at + 512])
    prefilled = time.perf_counter()
    token = int(engine.decode([FIRST_TOKEN]).argmax())
    first = time.perf_counter()
    for _ in range(tokens):
        token = int(engine.decode([token]).argmax())
    end = time.perf_counter()
    return {"prefill": prompt / (prefilled - start), "decode": tokens / (end - first)}


def main():
    wanted = json.loads(sys.argv[1])
    prompt, tokens = wanted["prompt"], wanted["tokens"]
    kind = ENGINES[wanted["engine"]]
    engine = kind(wanted["path"], wanted["threads"], prompt + tokens + 64, wanted.get("repack", False))
    result = measure(engine, prompt, wanted["warm"], tokens)
    about = {
        "version": f"{kind.package} {importlib.metadata.version(kind.package)}",
        "uses": instruction_sets(engine.system_info()),
    }
    print(json.dumps({**result, **about}), flush=True)


main()
