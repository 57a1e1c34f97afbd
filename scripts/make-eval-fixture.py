"""What lm-evaluation-harness asks for some made-up questions, into test/fixtures/eval.json, and two of the tasks as parquet: contexts, continuations, the right
answer, and the metrics for made-up scores. Run with a Python that has lm-eval[api] 0.4.12:

    python scripts/make-eval-fixture.py
"""

import json
import pathlib
import tempfile

import lm_eval
import pyarrow
import pyarrow.parquet
from lm_eval.tasks._yaml_loader import load_yaml
from lm_eval.api.task import ConfigurableTask

HERE = pathlib.Path(__file__).resolve().parent.parent
TASKS = pathlib.Path(lm_eval.__file__).parent / "tasks"

# In the form of the hub's files. Odd spaces, brackets and letters are what the definitions treat.
QUESTIONS = {
    "piqa": [
        {"goal": "open a jar", "sol1": "Turn the lid.", "sol2": "Turn the \"jar\" inside out. ", "label": 0},
        {"goal": "boil water ", "sol1": "put it on ice", "sol2": " heat it", "label": 1},
    ],
    "hellaswag": [
        {
            "activity_label": "Making tea",
            "ctx_a": "A man fills a kettle.  [header] How to [title] boil",
            "ctx_b": "then HE waits. he",
            "endings": ["pours it. [step] He drinks.", "eats [substeps] the  kettle", "dances", "waits  on"],
            "label": "2",
        },
        {"activity_label": "Ärger", "ctx_a": "Nothing.", "ctx_b": "", "endings": ["a", "bb", "ccc", "dddd"], "label": "0"},
        {"activity_label": "x", "ctx_a": "y", "ctx_b": "éA b", "endings": [" [title] z", "w ", "v", "u"], "label": "3"},
    ],
    "winogrande": [
        {"sentence": "Ann thanked Bea because _ had helped.", "option1": "Ann", "option2": "Bea", "answer": "2"},
        {"sentence": "_ was late, so the bus left.", "option1": "Cy", "option2": "the driver", "answer": "1"},
    ],
    "arc_easy": [
        {
            "question": "What is ice?\nThink.",
            "choices": {"text": ["water", "air ", "salt", "\"wood\""], "label": ["A", "B", "C", "D"]},
            "answerKey": "A",
        },
        {"question": "Which?", "choices": {"text": ["one", "two", "three"], "label": ["1", "2", "3"]}, "answerKey": "3"},
    ],
    "arc_challenge": [
        {"question": "Why?", "choices": {"text": ["because", "ünïcödé 😀"], "label": ["A", "B"]}, "answerKey": "B"},
    ],
    "boolq": [
        {"passage": "Title -- The sea is salt.", "question": "is the sea salt", "label": 1},
        {"passage": "None. ", "question": "is it", "label": 0},
    ],
    "lambada": [
        {"text": "She opened the door and saw the dog"},
        {"text": "\"No,\" he said, \"that is  mine.\""},
    ],
}

FILES = {
    "piqa": "piqa/piqa.yaml",
    "hellaswag": "hellaswag/hellaswag.yaml",
    "winogrande": "winogrande/default.yaml",
    "arc_easy": "arc/arc_easy.yaml",
    "arc_challenge": "arc/arc_challenge.yaml",
    "boolq": "super_glue/boolq/default.yaml",
    "lambada": "lambada/lambada_openai.yaml",
}


def task_of(name, folder):
    config = load_yaml(TASKS / FILES[name], resolve_func=True)
    path = pathlib.Path(folder) / f"{name}.jsonl"
    path.write_text("".join(json.dumps(question) + "\n" for question in QUESTIONS[name]))
    config.pop("tag", None)
    config.pop("dataset_name", None)
    config.update(dataset_path="json", dataset_kwargs={"data_files": {"test": str(path), "validation": str(path)}})
    config.update(test_split="test", validation_split="validation", training_split=None)
    return ConfigurableTask(config=config)


def asked(task, doc):
    context = task.fewshot_context(doc, 0)
    requests = task.construct_requests(doc, context, doc_id=0, metadata=("x", 0, 1))
    requests = requests if isinstance(requests, list) else [requests]
    pairs = [request.args[:2] for request in requests]
    # Scores that no two answers share: what the metrics make of them shows which answer is right and how it is divided.
    scores = [-((7 * i + 3) % 5) - 1.25 for i in range(len(pairs))]
    results = [(score, i % 2 == 0) for i, score in enumerate(scores)]
    metrics = task.process_results(doc, results if len(pairs) > 1 else results[0:1])
    return {
        "pairs": [{"context": context, "continuation": continuation} for context, continuation in pairs],
        "scores": scores,
        "metrics": {name: float(value) for name, value in metrics.items()},
    }


# The columns as the hub has them.
TEXTS = pyarrow.list_(pyarrow.string())
COLUMNS = {
    "boolq": [("question", pyarrow.string()), ("passage", pyarrow.string()), ("label", pyarrow.int64())],
    "arc_challenge": [
        ("question", pyarrow.string()),
        ("choices", pyarrow.struct([("text", TEXTS), ("label", TEXTS)])),
        ("answerKey", pyarrow.string()),
    ],
}


def write_parquet(name, target):
    table = pyarrow.Table.from_pylist(QUESTIONS[name], schema=pyarrow.schema(COLUMNS[name]))
    pyarrow.parquet.write_table(table, target, compression="snappy")


def main():
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, questions in QUESTIONS.items():
            task = task_of(name, folder)
            docs = list(task.eval_docs)
            found[name] = [{"record": record, **asked(task, doc)} for record, doc in zip(questions, docs, strict=True)]
    fixtures = HERE / "test" / "fixtures"
    write_parquet("boolq", fixtures / "eval-boolq.parquet")
    write_parquet("arc_challenge", fixtures / "eval-arc.parquet")
    target = fixtures / "eval.json"
    target.write_text(json.dumps({"harness": lm_eval.__version__, "tasks": found}, indent=1, ensure_ascii=False) + "\n")


main()
