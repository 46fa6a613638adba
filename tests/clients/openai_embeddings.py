"""Calls the embeddings of a server with OpenAI's own client.

Usage: openai_embeddings.py URL TOKEN MODEL

Prints one JSON object with what each call answered or raised.
"""

import json
import sys

import openai

url, token, model = sys.argv[1:]
client = openai.OpenAI(base_url=f"{url}/v1", api_key=token, max_retries=0)


def raised(call):
    """The class, the status and the error's own members of what a call raises."""
    try:
        call()
    except openai.APIStatusError as error:
        return {
            "class": type(error).__name__,
            "status": error.status_code,
            "code": error.code,
            "param": error.param,
            "message": error.message,
        }
    return None


# The client asks for base64 by itself and decodes it.
one = client.embeddings.create(model=model, input="a question")
many = client.embeddings.create(model=model, input=["a question", "another one"], encoding_format="float")
found = {
    "models": [entry.id for entry in client.models.list()],
    "one": one.data[0].embedding,
    "many": [entry.embedding for entry in many.data],
    "indices": [entry.index for entry in many.data],
    "model": many.model,
    "tokens": [one.usage.prompt_tokens, one.usage.total_tokens, many.usage.total_tokens],
    "full_length": len(client.embeddings.create(model=model, input="a", dimensions=384).data[0].embedding),
    "unknown_model": raised(lambda: client.embeddings.create(model="a/b", input="a")),
    "cut_short": raised(lambda: client.embeddings.create(model=model, input="a", dimensions=64)),
    "token_ids": raised(lambda: client.embeddings.create(model=model, input=[1, 2, 3])),
    "nothing": raised(lambda: client.embeddings.create(model=model, input=[])),
    "wrong_token": raised(
        lambda: openai.OpenAI(base_url=f"{url}/v1", api_key="cs-unknown", max_retries=0).models.list()
    ),
}
print(json.dumps(found))
