"""What transformers' own Jinja2 renders for the expressions, templates and chats in test/fixtures/jinja, as answers.json there.

pip install 'transformers==5.24.0' 'jinja2==3.1.6', then: python scripts/make-jinja-fixture.py
A template that fails there has the answer {"error": "..."}: its message is for readers, tests ask only that ours fails too.
"""
import json
import re
import sys
from datetime import datetime
from pathlib import Path

from transformers.utils.chat_template_utils import _compile_jinja_template, render_jinja_template

FOLDER = Path(__file__).resolve().parent.parent / "test" / "fixtures" / "jinja"


def answer(render):
    try:
        return {"text": render()}
    except Exception as error:  # whatever a template can raise
        return {"error": f"{type(error).__name__}: {error}"[:200]}


def expressions(variables):
    lines = (FOLDER / "expressions.txt").read_text().replace("\\\n", "\\\0").split("\n")
    for line in lines:
        expression = line.replace("\0", "\n")
        if expression.strip() and not expression.startswith("#"):
            template = "[{{ " + expression + " }}]"
            yield expression, answer(lambda: _compile_jinja_template(template).render(**variables))


def statements(variables):
    for part in (FOLDER / "statements.txt").read_text().split("\n=====\n"):
        name, _, template = part.partition("\n")
        yield name, answer(lambda: _compile_jinja_template(template).render(**variables))


def chats():
    given = json.loads((FOLDER / "chats.json").read_text())
    for path in sorted((FOLDER / "templates").glob("*.jinja")):
        template = path.read_bytes().decode()
        for name, chat in given.items():
            chat = dict(chat)
            messages = chat.pop("messages")
            for generation in (True, False):

                def render():
                    return render_jinja_template([messages], chat_template=template, add_generation_prompt=generation, **chat)[0][0]

                yield f"{path.stem} / {name} / {'open' if generation else 'closed'}", answer(render)


def dates():
    formats = ["%a %A %b %B %c %C %d %D %e %F %g %G %H %I %j %k %l %m %M %n %p %P %r %R %S %t %T %u %U %V %w %W %x %X %y %Y %z %Z %%",
               "%-d %-m %-I %_d %_H %0e %^a %^B %#p %#Z %10Y %-j %05d %Ey %Od", "%Q %! %", "%d %b %Y", "%Y-%m-%d", "%A, %d %B %Y %H:%M:%S"]
    moments = [(2024, 1, 1, 0, 0, 0), (2024, 12, 31, 23, 59, 58), (2023, 1, 1, 12, 5, 9), (2021, 1, 3, 13, 0, 1), (2000, 2, 29, 1, 1, 1), (2026, 7, 26, 11, 30, 0)]
    for moment in moments:
        for form in formats:
            yield {"moment": moment, "format": form, "text": datetime(*moment).strftime(form)}


def main():
    variables = json.loads((FOLDER / "variables.json").read_text())
    answers = {
        "expressions": dict(expressions(variables)),
        "statements": dict(statements(variables)),
        "chats": dict(chats()),
        "dates": list(dates()),
    }
    text = json.dumps(answers, ensure_ascii=False, indent=1)
    # Addresses differ from run to run: such answers are of no use to anybody.
    text = re.sub(r"0x[0-9a-f]{8,}", "0xADDRESS", text)
    (FOLDER / "answers.json").write_text(text + "\n")
    print({name: len(part) for name, part in answers.items()}, file=sys.stderr)


main()
