"""Stands in for `onebit texts`: texts by a rule, and failures on demand (FAKE_… in the environment)."""

import json
import os
import sys


def main() -> None:
    if os.environ.get("FAKE_REFUSES"):
        print("onebit: ERR_UNSUPPORTED_ARCHITECTURE: it is not known", file=sys.stderr)
        sys.exit(1)
    if os.environ.get("FAKE_CALLS"):
        with open(os.environ["FAKE_CALLS"], "a") as file:
            file.write(json.dumps(sys.argv[1:]) + "\n")
    length = int(sys.argv[sys.argv.index("--length") + 1])
    print(json.dumps({"model": {"vocab_size": int(os.environ.get("FAKE_VOCABULARY", "320"))}}), flush=True)
    dies_after, written = int(os.environ.get("FAKE_DIES_AFTER", "-1")), 0
    for line in sys.stdin:
        if written == dies_after:
            sys.stdout.write('{"sequence": 9')  # a line that is cut
            sys.stdout.flush()
            print("onebit: ERR_OUT_OF_MEMORY: there is none", file=sys.stderr)
            os._exit(1)
        order = json.loads(line)
        ids = [*order["ids"], *((order["seed"] + 7 * i) % 256 for i in range(length - 1 - order["sequence"] % 3))]
        print(json.dumps({"tokens": 5}), flush=True)
        print(json.dumps({"sequence": order["sequence"], "ids": ids, "end": "length"}), flush=True)
        written += 1


main()
