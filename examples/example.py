# SPDX-License-Identifier: Apache-2.0
"""Asks a model a question and prints the answer as it comes; with one question more, what the
engine reuses of the conversation: example.py MODEL QUESTION [QUESTION ..]"""

import sys

import banyan


def print_text(token, text):
    print(text, end="", flush=True)  # returning False would end the answer


def main(path, *questions):
    model = banyan.Model(path)
    messages = []
    for question in questions:
        messages.append(("user", question))
        prompt = model.apply_chat_template(messages)
        reply = model.generate(prompt, print_text, temperature=0)
        messages.append(("assistant", reply.text))
        print(f"\n{len(reply.tokens)} tokens in {reply.predicted_ms:.0f} ms, "
              f"{reply.reused_tokens} of {reply.prompt_tokens} prompt tokens reused")


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except banyan.Error as error:
        sys.exit(str(error))
