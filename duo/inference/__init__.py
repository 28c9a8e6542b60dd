"""Text from a backbone under a router's routes, token by token.

generate     continues prompts, at once or as a stream
decoder      reads sequences step by step, in memory that is allocated once
sampling     the next token out of logits
prompts      what may be continued, and what is impossible
text         the bytes of tokens as text, up to a stop string
agreement    whether steps decide as one whole pass does
harness      backbone and router as a model of lm-eval
huggingface  backbone and router as a model of transformers
"""

from duo.inference.agreement import Agreement, compare_with_whole_pass
from duo.inference.decoder import Decoder
from duo.inference.generate import Continuation, Written, generate, stream
from duo.inference.sampling import Sampling

__all__ = [
    "Agreement",
    "Continuation",
    "Decoder",
    "Sampling",
    "Written",
    "compare_with_whole_pass",
    "generate",
    "stream",
]
