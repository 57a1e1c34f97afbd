"""Text by the teacher itself, the paper's training data (section 3.4; the way of LLM-QAT, arXiv 2305.17888).

Each sequence begins with a given first token; up to a total of three to five tokens the likeliest is taken, from there
on tokens are drawn. Sequences are generated in a batch with a KV cache; a row that is finished begins the next sequence
at once. What is drawn depends on seed, sequence and position only, not on which row a sequence is in. Where there is no
GPU the project's own engine writes the texts instead (engine.py).
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import DistillError, check_whole_numbers
from ..model.attention import KVCache
from ..model.llama import Llama
from ..system.atomic_file import file_error, writing_atomically
from ..system.clock import clock
from ..system.processes import World
from .beginnings import Beginnings
from .engine import TextEngine, texts_at_once
from .teacher import Teacher

FIRST_TOKENS = ("enumerate", "random", "bos", "texts")

#: a GPU is asked only this often which rows have ended, so that it never waits for the host
_GPU_STEPS_BETWEEN_LOOKS = 16


@dataclass(frozen=True)
class GenerateOptions:
    """Raises DistillError ERR_BAD_OPTION for values out of range."""

    #: texts to be made; 0, with first = enumerate: every pair of a first token and a number of greedy ones once
    sequences: int = 1000
    #: at most so many tokens each, the first included
    length: int = 2048
    #: enumerate: sequence i begins with token i (LLM-QAT's code, no BOS); random: any token (as the paper says);
    #: bos: the beginning of a text, for models of one kind of text; texts: some tokens from anywhere in given texts
    first: str = "enumerate"
    #: with first = texts: how many tokens of them. What follows is drawn
    begin_tokens: int = 32
    #: total lengths at which drawing begins, each in turn (see greedy_total)
    greedy_least: int = 3
    greedy_most: int = 5
    temperature: float = 1.0
    #: draw from the k likeliest (Hugging Face's default of 50 is what LLM-QAT's code runs with); 0: from all
    top_k: int = 50
    #: sequences at once
    batch: int = 64
    seed: int = 0

    def __post_init__(self) -> None:
        least = {"sequences": 0, "length": 2, "greedy_least": 1, "top_k": 0, "batch": 1, "seed": 0, "begin_tokens": 1}
        check_whole_numbers(self, least)
        if not isinstance(self.greedy_most, int) or self.greedy_most < self.greedy_least:
            raise DistillError("ERR_BAD_OPTION", "greedy_most must be at least greedy_least")
        if not isinstance(self.temperature, (int, float)) or not 0 < self.temperature < 1e6:
            raise DistillError("ERR_BAD_OPTION", f"temperature must be above 0, found {self.temperature!r}")
        if self.first not in FIRST_TOKENS:
            known = ", ".join(FIRST_TOKENS)
            raise DistillError("ERR_BAD_OPTION", f"first must be one of {known}, found {self.first!r}")
        if self.sequences == 0 and self.first != "enumerate":
            raise DistillError("ERR_BAD_OPTION", "sequences = 0, every pair once, needs first = enumerate")
        if self.first == "texts" and self.begin_tokens + 2 > self.length:  # with a BOS, and one that is drawn
            message = f"begin_tokens: after {self.begin_tokens} there is no room in a length of {self.length}"
            raise DistillError("ERR_BAD_OPTION", message)

    @property
    def greedy_lengths(self) -> int:
        return self.greedy_most - self.greedy_least + 1

    def count(self, vocabulary: int) -> int:
        """Texts to be made with so many tokens."""
        return self.sequences or self.greedy_lengths * vocabulary


def options_from_table(table: dict[str, Any], source: str) -> GenerateOptions:
    """Raises DistillError ERR_CONFIG_FILE for unknown names."""
    unknown = sorted(set(table) - set(GenerateOptions.__dataclass_fields__))
    if unknown:
        raise DistillError("ERR_CONFIG_FILE", f"{source}: [generate] has no option {unknown[0]!r}")
    return GenerateOptions(**table)


def _mix(x: Tensor) -> Tensor:
    """splitmix64's finaliser on int64 (products wrap; shifts are made logical by masking)."""
    x = (x ^ ((x >> 30) & 0x3FFFFFFFF)) * -0x40A7B892E31B1A47
    x = (x ^ ((x >> 27) & 0x1FFFFFFFFF)) * -0x6B2FB644ECCEEE15
    return x ^ ((x >> 31) & 0x1FFFFFFFF)


def uniform(seed: int, sequence: Tensor, position: Tensor) -> Tensor:
    """A number in [0, 1) for each pair of int64 tensors; the same on every device, whatever the batch."""
    mixed = _mix(_mix(sequence * -0x61C8864680B583EB + seed + 1) + position)
    return ((mixed >> 11) & 0x1FFFFFFFFFFFFF).double() * 2.0**-53


def draw(logits: Tensor, chance: Tensor, temperature: float, top_k: int) -> Tensor:
    """Tokens [B] from logits [B, V] by inverting the distribution at `chance` [B], over the k likeliest (0: all)."""
    scaled = logits.float() / temperature
    k = min(top_k, scaled.shape[-1]) if top_k > 0 else scaled.shape[-1]
    values, ids = scaled.topk(k, dim=-1)
    below = values.softmax(-1).cumsum(-1)
    # the last sum may fall short of 1 by rounding
    index = (below <= (chance * below[:, -1].double()).float()[:, None]).sum(-1).clamp_max(k - 1)
    return ids.gather(-1, index[:, None])[:, 0]


class _Rows:
    """A batch of sequences in progress: all on the device, in shapes that never change (a CUDA graph can hold it)."""

    def __init__(self, model: Llama, options: GenerateOptions, device: torch.device, dtype: torch.dtype) -> None:
        self.model, self.options, self.device = model, options, device
        rows = options.batch
        self.cache = KVCache(model.config, rows, options.length, device, dtype)
        #: the token to be fed next, and where it stands
        self.token = torch.zeros(rows, dtype=torch.int64, device=device)
        self.position = torch.zeros(rows, dtype=torch.int64, device=device)
        self.sequence = torch.zeros(rows, dtype=torch.int64, device=device)
        self.greedy = torch.zeros(rows, dtype=torch.int64, device=device)
        #: with what a sequence begins, and how many of these tokens there are
        width = options.begin_tokens + 1 if options.first == "texts" else 1
        self.given = torch.zeros((rows, width), dtype=torch.int64, device=device)
        self.given_count = torch.zeros(rows, dtype=torch.int64, device=device)
        self.written = torch.zeros((rows, options.length), dtype=torch.int64, device=device)
        self.graph: torch.cuda.CUDAGraph | None = None

    def begin(self, row: int, sequence: int, given: list[int]) -> None:
        options = self.options
        self.token[row], self.position[row], self.sequence[row] = given[0], 0, sequence
        self.given[row, : len(given)] = torch.tensor(given, device=self.device)
        self.given_count[row] = len(given)
        self.greedy[row] = greedy_total(options, sequence, self.model.config.vocab_size)
        self.written[row] = -1
        self.written[row, 0] = given[0]

    def _advance(self) -> None:
        """Feeds one token of every row and appends the next; a row at its end writes its last place again."""
        options = self.options
        logits = self.model(self.token[:, None], cache=self.cache, positions=self.position[:, None]).logits[:, -1]
        chance = uniform(options.seed, self.sequence, self.position)
        drawn = draw(logits, chance, options.temperature, options.top_k)
        chosen = torch.where(self.position + 1 < self.greedy, logits.argmax(-1), drawn)
        following = (self.position + 1).clamp_max(options.length - 1)
        known = self.given.gather(1, following.clamp_max(self.given.shape[1] - 1)[:, None])[:, 0]
        chosen = torch.where(following < self.given_count, known, chosen)
        full = self.position + 1 >= options.length
        self.written.scatter_(1, following[:, None], torch.where(full, self.written[:, -1], chosen)[:, None])
        self.token.copy_(chosen)
        self.position.copy_(following)

    @torch.no_grad()
    def advance(self) -> None:
        if self.graph is not None:
            self.graph.replay()
            return
        if self.device.type == "cpu":
            self.cache.limit = int(self.position.max()) + 1
        self._advance()

    @torch.no_grad()
    def capture(self) -> None:
        """Records a step as a CUDA graph: a small model is otherwise bound by launching hundreds of kernels a token."""
        kept = [t.clone() for t in (self.token, self.position, self.written)]
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):  # warm-up, as torch's manual asks before a capture
                self._advance()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self._advance()
        self.graph = graph
        for target, value in zip((self.token, self.position, self.written), kept, strict=True):
            target.copy_(value)


def first_token(options: GenerateOptions, sequence: int, teacher: Teacher) -> int:
    if options.first == "bos":
        if teacher.bos_id is None:
            raise DistillError("ERR_BAD_OPTION", "first = bos: this tokenizer has no beginning-of-sequence token")
        return teacher.bos_id
    vocabulary = teacher.config.vocab_size
    if options.first == "enumerate":
        return sequence % vocabulary
    return int(uniform(options.seed, torch.tensor([sequence]), torch.tensor([-1])) * vocabulary)


def greedy_total(options: GenerateOptions, sequence: int, vocabulary: int) -> int:
    """The total length at which drawing begins.

    Sequence by sequence the lengths take turns; when all first tokens were enumerated, each token's turn goes on by one.
    So every token meets every length, also where the number of lengths divides that of tokens (3 and 49,152): LLM-QAT's
    code has three texts for each token.
    """
    if options.first == "texts":
        return 1
    rounds, place = divmod(sequence, vocabulary) if options.first == "enumerate" else (0, sequence)
    return options.greedy_least + (place + rounds) % options.greedy_lengths


def beginning(options: GenerateOptions, sequence: int, teacher: Teacher, texts: Beginnings | None) -> list[int]:
    """What a sequence begins with; texts: for first = texts."""
    if texts is None:
        return [first_token(options, sequence, teacher)]
    return texts.at(float(uniform(options.seed, torch.tensor([sequence]), torch.tensor([-3]))))


def order_texts(
    teacher: Teacher, options: GenerateOptions, wanted: Iterable[int], texts: Beginnings | None = None
) -> Iterator[dict[str, Any]]:
    """The wanted sequences as the engine takes them, each with a seed of its own."""
    for sequence in wanted:
        chance = float(uniform(options.seed, torch.tensor([sequence]), torch.tensor([-2])))
        given = beginning(options, sequence, teacher, texts)
        yield {
            "sequence": sequence,
            "ids": given,
            "greedy": max(len(given), greedy_total(options, sequence, teacher.config.vocab_size)),
            "seed": int(chance * 2**53),
        }


def generate_sequences(
    teacher: Teacher,
    options: GenerateOptions,
    wanted: Iterable[int],
    graph: bool = False,
    texts: Beginnings | None = None,
):
    """Yields (sequence number, ids) of the wanted sequences as they end: at an end token, which is left out, or at the
    length. ids include the first token.

    Raises DistillError ERR_CONTEXT_LENGTH for a length beyond the teacher's context.
    """
    weight = teacher.model.model.embed_tokens.weight
    ends = set(teacher.eos_ids)
    rows = _Rows(teacher.model, options, weight.device, weight.dtype)
    waiting = iter(wanted)
    running: dict[int, int] = {}

    def refill(row: int) -> None:
        sequence = next(waiting, None)
        running.pop(row, None)
        if sequence is not None:
            running[row] = sequence
            rows.begin(row, sequence, beginning(options, sequence, teacher, texts))

    for row in range(options.batch):
        refill(row)
    if graph and weight.device.type == "cuda":
        rows.capture()
    steps = _GPU_STEPS_BETWEEN_LOOKS if weight.device.type == "cuda" else 1
    while running:
        for _ in range(steps):
            rows.advance()
        position = rows.position.tolist()
        recent = rows.written.cpu()
        for row, sequence in list(running.items()):
            ids = recent[row, : position[row] + 1].tolist()
            seen = ids[max(1, len(ids) - steps) :]
            end = next((i for i, token in enumerate(seen) if token in ends), None)
            if end is not None:
                ids = ids[: len(ids) - len(seen) + end]
            if end is not None or position[row] + 1 >= options.length:
                yield sequence, ids
                refill(row)


def _finished(path: Path) -> set[int]:
    """Sequences that a file holds already; a line torn by a kill is cut off."""
    if not path.exists():
        return set()
    data = path.read_bytes()
    whole = data[: data.rfind(b"\n") + 1]
    if len(whole) < len(data):
        with writing_atomically(path) as file:
            file.write(whole)
    try:
        return {json.loads(line)["sequence"] for line in whole.splitlines()}
    except (ValueError, KeyError, TypeError) as cause:
        raise DistillError(
            "ERR_DATA", f"{path} was not written by generate ({cause})", "Choose another --out."
        ) from cause


def _check_same(folder: Path, described: dict[str, Any], world: World) -> None:
    path = folder / "generate.json"
    if path.exists():
        try:
            before = dict(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as cause:
            message = f"{path} was not written by generate ({cause})"
            raise DistillError("ERR_DATA", message, "Choose another --out.") from cause
        # folders from before there was a choice
        before = {"engine": "torch", "begin_tokens": described["begin_tokens"], **before}
        differing = [name for name in described if before.get(name) != described[name] and name != "batch"]
        if differing:
            name = differing[0]
            message = f"{folder} was begun with {name} = {before.get(name)!r}, now it is {described[name]!r}"
            raise DistillError("ERR_RUN_DIFFERS", message, "Use the same options to go on, or another --out.")
    elif world.is_first:
        with writing_atomically(path) as file:
            file.write(json.dumps(described, indent=1).encode())


def _check_engine(engine: TextEngine, teacher: Teacher) -> None:
    theirs, ours = engine.model.get("vocab_size"), teacher.config.vocab_size
    if theirs != ours:
        message = f"the engine's model has {theirs} tokens, {teacher.source} has {ours}"
        raise DistillError("ERR_TOKENIZER_FIT", message, "Use --engine torch.")


def generate(
    teacher: Teacher,
    options: GenerateOptions,
    folder: Path,
    world: World,
    graph: bool = False,
    engine: TextEngine | None = None,
    texts: Beginnings | None = None,
) -> int:
    """Writes `generated-RANK-of-N.jsonl` with {"text", "sequence", "tokens"} a line; goes on where it was interrupted.

    engine: writes the texts in the place of the teacher's model, whose weights are not needed then. texts: what sequences
    begin with where first = texts. Returns the tokens made by this call. Raises DistillError ERR_RUN_DIFFERS,
    ERR_DISK_FULL, ERR_ENGINE and others.
    """
    if options.length > teacher.config.context_length:
        message = f"length {options.length} is beyond the teacher's context of {teacher.config.context_length}"
        raise DistillError("ERR_CONTEXT_LENGTH", message, "Choose a smaller --length.")
    if (options.first == "texts") != (texts is not None):
        raise DistillError("ERR_BAD_OPTION", "first = texts goes with --texts, and only with it")
    if engine is not None:
        _check_engine(engine, teacher)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as cause:
        raise file_error(cause, folder, "writing") from cause
    writer = {"engine": "torch"} if engine is None else {"engine": "onebit", "activations": engine.activations}
    described = {**asdict(options), "teacher_sha256": teacher.sha256, "processes": world.size, **writer}
    if texts is not None:
        described["texts_sha256"] = texts.digest()
    _check_same(folder, described, world)
    path = folder / f"generated-{world.rank}-of-{world.size}.jsonl"
    done = _finished(path)
    wanted = [i for i in range(world.rank, options.count(teacher.config.vocab_size), world.size) if i not in done]
    if done:
        print(f"generate: going on, {len(done)} sequences are there", file=sys.stderr)
    total, tokens, started, printed = len(done) + len(wanted), 0, time.monotonic(), time.monotonic()
    made = len(done)
    if engine is None:
        written = generate_sequences(teacher, options, wanted, graph, texts)
    else:
        written = engine.texts(order_texts(teacher, options, wanted, texts), texts_at_once(options))
    try:
        with open(path, "ab") as file:
            for sequence, ids in written:
                text = teacher.tokenizer.decode(ids, skip_special_tokens=True)
                line = json.dumps({"text": text, "sequence": sequence, "tokens": len(ids)}, ensure_ascii=False)
                file.write(line.encode() + b"\n")
                file.flush()  # a kill then loses only what is not finished
                made, tokens = made + 1, tokens + len(ids)
                if time.monotonic() - printed > 30:
                    printed = time.monotonic()
                    speed = tokens / (printed - started)
                    left = (total - made) * (printed - started) / max(1, made - len(done))
                    text = f"generate {made}/{total}  {speed:.0f} tokens/s  {clock(left)} left"
                    print(text, file=sys.stderr, flush=True)
            file.flush()
            os.fsync(file.fileno())
    except OSError as cause:
        raise file_error(cause, path, "writing") from cause
    if wanted and world.is_first:
        seconds = time.monotonic() - started
        print(f"generate: {tokens} tokens in {seconds:.1f} s, {tokens / seconds:.0f} tokens/s", file=sys.stderr)
    return tokens
