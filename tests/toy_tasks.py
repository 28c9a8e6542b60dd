"""Small tasks of lm-eval's, whose questions lie beside them."""

import json

SHARED = """task: toy_{name}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {folder}/choice.jsonl}}}}
test_split: test
metadata: {{version: 1}}
"""
CHOICE = """output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_choice: choices
doc_to_target: label
metric_list: [{{metric: acc}}, {{metric: acc_norm}}]
"""
ROLLING = """output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{{{text}}}}"
metric_list: [{{metric: bits_per_byte}}]
"""
WRITING = """output_type: generate_until
doc_to_text: "{{{{question}}}}"
doc_to_target: "{{{{choices[0]}}}}"
generation_kwargs: {{until: ["\\n"], max_gen_toks: 5, do_sample: false}}
metric_list: [{{metric: exact_match}}]
"""
STARTS = ["", "the words of", "and so", "word3 word5 is the words that", "a text of the words in the text and"]


def write_tasks(folder, questions=12):
    """Writes the tasks, whose contexts have many lengths (none among them), as have their choices."""
    rows = []
    for number in range(questions):
        choices = [" words", " a text", f" word{number} and more of it", " of"][: 2 + number % 3]
        rows.append({
            "question": STARTS[number % 5], "choices": choices, "label": number % len(choices),
            "text": f"{STARTS[number % 5]} word{number} the words in a text. " * (1 + number % 3),
        })  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "choice.jsonl").write_text("\n".join(map(json.dumps, rows)))
    for name, text in (("choice", CHOICE), ("rolling", ROLLING), ("writing", WRITING)):
        (folder / f"{name}.yaml").write_text((SHARED + text).format(name=name, folder=folder))
    return folder
