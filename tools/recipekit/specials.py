"""Special tokens written out in a text, such as </s> or [INST], made into plain text that no tokenizer takes for them.

A tokenizer makes a special token of its name wherever that stands: an article that quotes "</s>" would end the prompt,
and one that quotes "[INST]" could pose as an instruction. The first character is written in full width instead (＜/s>),
in training and prediction alike; scoring ignores widths, so an extracted value is as good as before.
"""

import re
from collections.abc import Callable, Iterable

# Of Llama 2, Mistral, Gemma, T5, XLM-R, BERT and their Japanese descendants.
_ANGLES = (
    "s|unk|pad|bos|eos|mask|cls|sep|NL|think|image|tool_call|tool_response"
    "|start_of_turn|end_of_turn|start_of_image|end_of_image|(?:extra_id|reserved|unused|special)_?[0-9]+"
)
_SQUARES = (
    "INST|AVAILABLE_TOOLS|TOOL_RESULTS|TOOL_CALLS|TOOL_CONTENT|SYSTEM_PROMPT|IMG|IMG_BREAK|IMG_END|PREFIX|MIDDLE|SUFFIX"
    "|CLS|SEP|PAD|UNK|MASK|BOS|EOS"
)
_KNOWN = (
    rf"</?(?:{_ANGLES})>|\[/?(?:{_SQUARES})\]|<</?SYS>>"
    r"|<\|[^\s<>|]{1,40}\|>"  # Llama 3, Qwen, Phi, LLM-jp: <|im_end|>
    r"|<｜[^\s<>｜]{1,40}｜>"  # DeepSeek
)
FULL_WIDTH = ord("！") - ord("!")


def defuser(more: Iterable[str]) -> Callable[[str], str]:
    """Return a function that makes special tokens in a text plain; what has none stays as it is.

    Args:
        more: Special tokens of the task's own tokenizer (prompt.bos, eos and special_tokens in task.yml); those that do
            not begin with an ASCII character have no full width, and stay.
    """
    own = sorted({name for name in more if name and "!" <= name[0] <= "~"}, key=lambda name: -len(name))
    pattern = re.compile("|".join([*map(re.escape, own), _KNOWN]))
    firsts = {"<", "[", *(name[0] for name in own)}

    def defuse(text: str) -> str:
        if not any(map(text.__contains__, firsts)):
            return text
        return pattern.sub(lambda match: chr(ord(match[0][0]) + FULL_WIDTH) + match[0][1:], text)

    return defuse
