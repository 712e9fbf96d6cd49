import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForSequenceClassification

from selfpriority.backends.answers import key_of
from selfpriority.backends.hf import HfClassifier, HfModel
from selfpriority.chat import Chat
from selfpriority.errors import InputError
from selfpriority.language_model import (
    Answer,
    Choice,
    Choose,
    Classify,
    Completion,
    Embed,
    Failure,
    Generate,
    Request,
    Value,
    Vectors,
    ask,
)
from selfpriority.recipe import HfBackend
from selfpriority.records import Message, Stop

SETTINGS = HfBackend(dtype="float32", device="cpu")


def user(text: str) -> tuple[Message, ...]:
    return (Message("user", text),)


def write(text: str, **changes: object) -> Generate:
    base = Generate(user(text), n=1, temperature=1.0, top_p=1.0, max_new_tokens=12, seed=0)
    return replace(base, **changes)


@pytest.fixture(scope="module")
def model(tiny_model: Path) -> HfModel:
    return HfModel(str(tiny_model), SETTINGS)


@pytest.fixture(scope="module")
def plain(tiny_model: Path):
    return AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32).eval()


@pytest.fixture(scope="module")
def chat(tiny_model: Path) -> Chat:
    return Chat(AutoTokenizer.from_pretrained(tiny_model))


def texts(answer: Answer) -> list[str]:
    assert isinstance(answer, Completion)
    return [text.text for text in answer.texts]


PROMPTS = ("Hello", "Explain how to keep a kitchen knife sharp.", "a b c d e f g h i j k l m n o p")


def test_greedy_equals_generate(model: HfModel, plain, chat: Chat) -> None:
    answers = ask(model, [write(text, temperature=0.0) for text in PROMPTS])
    for text, answer in zip(PROMPTS, answers, strict=True):
        ids = torch.tensor([chat.prompt_ids(user(text))])
        out = plain.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=12)
        assert texts(answer) == [chat.response_text(out[0, ids.shape[1] :].tolist())]


def test_an_answer_that_is_begun_goes_on_and_holds_its_beginning(model: HfModel, plain, chat: Chat) -> None:
    opening = "The safe way is"
    requests = [write(text, temperature=0.0, opening=opening) for text in PROMPTS]
    begun = chat.response_ids(opening, "length")
    for text, answer in zip(PROMPTS, ask(model, requests), strict=True):
        ids = torch.tensor([[*chat.prompt_ids(user(text)), *begun]])
        out = plain.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=12)
        written = out[0, ids.shape[1] :].tolist()
        assert texts(answer) == [chat.response_text([*begun, *written])]
        assert texts(answer)[0].startswith(opening)
        assert isinstance(answer, Completion)
        assert answer.texts[0].n_tokens == len(begun) + len(written)


def test_an_opening_that_nothing_follows_is_no_answer(model: HfModel, monkeypatch: pytest.MonkeyPatch) -> None:
    end = min(model._loaded.end_ids)
    monkeypatch.setattr("selfpriority.backends.hf.generate", lambda *_: [[end], [70, end]])
    nothing, something = ask(model, [write("Hello", opening="In short,", n=2)])[0].texts
    assert (nothing.text, nothing.n_tokens, nothing.stop) == ("", 1, "end")
    assert something.text.startswith("In short,")
    assert something.text != "In short,"


def test_openings_differ_in_their_draws_and_their_keys_and_none_is_as_before(model: HfModel) -> None:
    plain, begun, other = write("Hello", n=4), write("Hello", n=4, opening="Yes,"), write("Hello", n=4, opening="No,")
    assert len({key_of("m", request) for request in (plain, begun, other)}) == 3
    # the key that stored answers have had since before answers were begun
    assert key_of("m", plain) == "ab66c44c850962253991251e0c405cc48986cb0079f3b7d7dee57f82a57cf714"
    answers = ask(model, [begun, other])
    tails = [
        {text[len(of.opening) :] for text in texts(answer)} for of, answer in zip((begun, other), answers, strict=True)
    ]
    assert tails[0].isdisjoint(tails[1])


def test_samples_of_one_request_differ_and_seeds_matter(model: HfModel) -> None:
    one, two = ask(model, [write("Hello", n=8), write("Hello", n=8, seed=1)])
    assert len(set(texts(one))) == 8
    assert set(texts(one)) != set(texts(two))


def test_a_batch_depends_on_itself_alone(tiny_model: Path) -> None:
    model = HfModel(str(tiny_model), SETTINGS.model_copy(update={"max_batch": 4}))
    requests: list[Request] = [write(f"Question {i}", n=2) for i in range(8)]
    batches = [[requests[i] for i in batch] for batch in model.plan(requests)]
    assert len(batches) == 4
    every = dict(model.answer(batches))
    torch.manual_seed(5)
    state = torch.get_rng_state()
    assert dict(model.answer(batches[2:])) == {0: every[2], 1: every[3]}
    assert torch.equal(torch.get_rng_state(), state)


def test_plan_is_deterministic_and_by_settings(model: HfModel) -> None:
    requests: list[Request] = [write(text, temperature=t) for t in (0.0, 1.0) for text in PROMPTS]
    requests += [Embed(user("x"), "y", (1,)), Choose((user("x"),), ("0",))]
    assert model.plan(requests) == [[2, 1, 0], [5, 4, 3], [6], [7]]
    assert model.plan(requests) == model.plan(requests)


def test_stop_and_token_counts(model: HfModel, chat: Chat) -> None:
    """The tiny model draws its end token with about 1 in 384 at every step, so 400 tokens end mostly by it."""
    [answer] = ask(model, [write("Hello", n=12, max_new_tokens=400)])
    assert isinstance(answer, Completion)
    assert {text.stop for text in answer.texts} == {"end", "length"}
    for text in answer.texts:
        assert text.n_tokens == 400 if text.stop == "length" else text.n_tokens < 400
        assert "<|im_end|>" not in text.text


def test_generation_is_the_nucleus(model: HfModel, plain, chat: Chat) -> None:
    """With a small top_p only the most probable first tokens appear, in their proportion."""
    [answer] = ask(model, [write("Hello", n=400, top_p=0.3, max_new_tokens=1)])
    with torch.inference_mode():
        probabilities = plain(torch.tensor([chat.prompt_ids(user("Hello"))])).logits[0, -1].softmax(-1)
    order = probabilities.argsort(descending=True)
    n_inside = int((probabilities[order].cumsum(0) < 0.3).sum()) + 1
    shares: dict[str, float] = {}  # several tokens may read the same
    for i in order[:n_inside].tolist():
        text = chat.response_text([i])
        shares[text] = shares.get(text, 0.0) + float(probabilities[i] / probabilities[order[:n_inside]].sum())
    assert set(texts(answer)) <= set(shares)
    for text, share in shares.items():
        assert abs(texts(answer).count(text) / 400 - share) < 0.1


def test_too_long_is_a_failure_with_numbers(model: HfModel) -> None:
    long, short = ask(model, [write("word " * 400), write("word")])
    assert isinstance(long, Failure)
    assert long.reason == "too_long"
    assert "12 more exceed the context of 512" in long.detail
    assert isinstance(short, Completion)
    [limit] = ask(model, [write("Hello", max_new_tokens=10_000)])
    assert isinstance(limit, Failure)


def test_choose_equals_a_plain_forward(model: HfModel, plain, chat: Chat) -> None:
    choices, vocabulary = ("0", "1", "7"), chat.tokenizer.get_vocab()
    spelled = [[vocabulary[t] for t in (choice, f"\u0120{choice}") if t in vocabulary] for choice in choices]
    contexts = [
        tuple(user(f"{text} Rate its {aspect}.") for aspect in ("harm", "help to the user", "tone")) for text in PROMPTS
    ]
    requests = [Choose(group, choices) for group in contexts] + [Choose((user("Alone"),), choices)]
    for request, answer in zip(requests, ask(model, requests), strict=True):
        assert isinstance(answer, Choice)
        for context, row in zip(request.contexts, answer.probabilities, strict=True):
            with torch.inference_mode():
                logits = plain(torch.tensor([chat.prompt_ids(context)])).logits[0, -1].softmax(-1)
            expected = [float(logits[tokens].sum()) for tokens in spelled]
            assert row == pytest.approx(expected, abs=1e-6, rel=1e-5)


def test_a_choice_of_two_tokens_is_refused_before_anything_is_asked(model: HfModel) -> None:
    with pytest.raises(InputError, match="'10' is not one token"):
        model.plan([Choose((user("Hello"),), ("1", "10"))])


def test_embed_is_the_mean_over_the_response(model: HfModel, plain, chat: Chat) -> None:
    requests = [Embed(user(text), f"Answer to {text}", (2, 0, 1)) for text in PROMPTS]
    for request, answer in zip(requests, ask(model, requests), strict=True):
        prompt, response = chat.prompt_ids(request.messages), chat.response_ids(request.response, "end")
        with torch.inference_mode():
            out = plain.model(torch.tensor([prompt + response]), output_hidden_states=True).hidden_states
        assert isinstance(answer, Vectors)
        for layer, vector in zip((0, 1), (answer.vectors[1], answer.vectors[2]), strict=True):
            expected = out[layer][0, len(prompt) :].mean(0)
            torch.testing.assert_close(torch.tensor(vector), expected, rtol=1e-5, atol=1e-5)
        assert len(answer.vectors[0]) == 32


def test_embed_behind_an_opening_reads_it_and_leaves_it_out_of_the_mean(model: HfModel, plain, chat: Chat) -> None:
    opening, response = "Sure, here is how:", " first you look"
    ids = [*chat.prompt_ids(user("Hello")), *chat.response_ids(opening, "length")]
    whole = [*ids, *chat.response_ids(response, "length")]
    with torch.inference_mode():
        states = plain(torch.tensor([whole]), output_hidden_states=True).hidden_states[1][0]
    behind, alone = ask(
        model,
        [
            Embed(user("Hello"), response, (1,), stop="length", opening=opening),
            Embed(user("Hello"), response, (1,), stop="length"),
        ],
    )
    assert isinstance(behind, Vectors)
    assert isinstance(alone, Vectors)
    torch.testing.assert_close(torch.tensor(behind.vectors[0]), states[len(ids) :].mean(0), atol=1e-5, rtol=1e-5)
    assert behind.vectors != alone.vectors
    keys = {key_of("m", Embed(user("Hello"), response, (1,), opening=begun)) for begun in ("", opening, "No,")}
    assert len(keys) == 3


def test_an_opening_needs_no_turn_that_a_template_could_refuse(tiny_model: Path, tmp_path: Path) -> None:
    """Mistral's, Llama-2's and Gemma's templates take no two turns of the assistant in a row."""
    shutil.copytree(tiny_model, tmp_path / "strict")
    (tmp_path / "strict" / "chat_template.jinja").write_text(NO_SECOND_QUESTION)
    strict = HfModel(str(tmp_path / "strict"), SETTINGS)
    begun = write("Hello", opening="Sure,")
    asked = [begun, Embed(user("Hello"), " it is", (1,), stop="length", opening="Sure,")]
    assert [type(answer) for answer in ask(strict, asked)] == [Completion, Vectors]
    twice = replace(begun, messages=(*user("Hello"), Message("assistant", "Sure,"), Message("assistant", "go on")))
    [refused] = ask(strict, [twice])
    assert isinstance(refused, Failure)


def test_embed_of_the_prompt_is_the_mean_over_what_the_user_said(model: HfModel, plain, chat: Chat) -> None:
    requests = [
        Embed(user(text), f"Answer to {text}", (2, 1), spans)
        for text in PROMPTS
        for spans in (("response", "prompt"), ("prompt",), ("response",))
    ]
    answers = ask(model, requests)
    for i in range(0, len(requests), 3):
        both, asked, said = answers[i : i + 3]
        assert isinstance(both, Vectors)
        assert isinstance(asked, Vectors)
        assert isinstance(said, Vectors)
        prompt, turn = chat.prompt_ids(requests[i].messages), chat.last_turn(requests[i].messages)
        assert 0 < len(turn) < len(prompt)
        with torch.inference_mode():
            out = plain.model(torch.tensor([prompt]), output_hidden_states=True).hidden_states
        expected = out[1][0, turn.start : turn.stop].mean(0)
        torch.testing.assert_close(torch.tensor(asked.vectors[1]), expected, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(torch.tensor(both.vectors), torch.tensor(said.vectors + asked.vectors))


def test_the_last_layer_is_before_the_final_norm(model: HfModel, plain, chat: Chat) -> None:
    [answer] = ask(model, [Embed(user("Hello"), "a", (2,))])
    assert isinstance(answer, Vectors)
    n_response = len(chat.response_ids("a", "end"))
    ids = torch.tensor([chat.prompt_ids(user("Hello")) + chat.response_ids("a", "end")])
    seen = []
    hook = plain.model.layers[1].register_forward_hook(lambda _, __, out: seen.append(out))
    with torch.inference_mode():
        plain(ids)
    hook.remove()
    torch.testing.assert_close(torch.tensor(answer.vectors[0]), seen[0][0, -n_response:].mean(0))


@pytest.mark.parametrize("stop", ["end", "length"])
def test_a_cut_answer_is_read_without_an_end_token_and_a_finished_one_with_it(
    model: HfModel, plain, chat: Chat, stop: Stop
) -> None:
    text = "The river rises and then it"
    words = chat.tokenizer(text, add_special_tokens=False)["input_ids"]
    prompt = chat.tokenizer("<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n")["input_ids"]
    read = [*words, chat.end_id] if stop == "end" else words
    with torch.inference_mode():
        out = plain.model(torch.tensor([[*prompt, *read]]), output_hidden_states=True).hidden_states
    whole, beside = ask(model, [Embed(user("Hello"), text, (0, 1), stop=stop), Embed(user("Hello"), text * 3, (1,))])
    assert isinstance(whole, Vectors)
    assert isinstance(beside, Vectors)
    for layer, vector in zip((0, 1), whole.vectors, strict=True):
        torch.testing.assert_close(torch.tensor(vector), out[layer][0, len(prompt) :].mean(0), rtol=1e-5, atol=1e-5)


def test_a_cut_answer_of_no_token_but_the_end_is_empty(model: HfModel) -> None:
    asked = [Embed(user("Hello"), "<|im_end|>", (1,), stop="length"), Embed(user("Hello"), "<|im_end|>", (1,))]
    cut, finished = ask(model, asked)
    assert cut == Failure("empty", "the response has no tokens")
    assert isinstance(finished, Vectors)


def test_bad_layers_and_empty_responses(model: HfModel) -> None:
    assert ask(model, [Embed(user("Hello"), "  ", (1,))]) == [Failure("empty", "the response is empty")]
    with pytest.raises(InputError, match="layer 3: this model has layers 0 to 2"):
        ask(model, [Embed(user("Hello"), "x", (3,))])


def test_a_causal_model_does_not_classify(model: HfModel) -> None:
    [answer] = ask(model, [Classify(user("Hello"), "x")])
    assert isinstance(answer, Failure)
    assert answer.reason == "unsupported"


def test_mixed_batch_keeps_its_order(model: HfModel) -> None:
    """As a cache asks for what is missing of several batches."""
    batch: list[Request] = [write("a", n=2), Embed(user("x"), "y", (1,)), write("b"), Classify(user("a"), "b")]
    [(_, answers)] = model.answer([batch])
    assert [type(answer) for answer in answers] == [Completion, Vectors, Completion, Failure]
    assert isinstance(answers[0], Completion)
    assert len(answers[0].texts) == 2


def test_fingerprint_holds_content_and_arithmetic(tiny_model: Path, model: HfModel) -> None:
    low = HfModel(str(tiny_model), HfBackend(dtype="bfloat16", device="cpu"))
    assert low.fingerprint != model.fingerprint
    assert HfModel(str(tiny_model), SETTINGS).fingerprint == model.fingerprint
    [answer] = ask(low, [write("Hello", n=3)])
    assert len(set(texts(answer))) == 3


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # peft asks for it
def test_adapter_is_merged(tiny_model: Path, model: HfModel, plain, chat: Chat, tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model

    peft = get_peft_model(
        AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32),
        LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM"),
    )
    for name, weights in peft.named_parameters():
        if "lora_B" in name:
            torch.nn.init.constant_(weights, 0.1)
    peft.save_pretrained(tmp_path)
    adapted = HfModel(str(tmp_path), SETTINGS)
    assert adapted.fingerprint != model.fingerprint
    request = Embed(user("Hello"), "a b c", (2,))
    [before], [after] = ask(model, [request]), ask(adapted, [request])
    assert isinstance(before, Vectors)
    assert isinstance(after, Vectors)
    assert before != after
    ids = torch.tensor([chat.prompt_ids(user("Hello")) + chat.response_ids("a b c", "end")])
    with torch.inference_mode():
        expected = peft.eval()(ids, output_hidden_states=True).logits
        got = adapted._loaded.model(ids).logits
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)


def test_folder_without_some_weights_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    import shutil

    from safetensors.torch import load_file, save_file

    folder = shutil.copytree(tiny_model, tmp_path / "m")
    tensors = load_file(folder / "model.safetensors")
    del tensors["model.norm.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"no weights for model\.norm\.weight"):
        HfModel(str(folder), SETTINGS)


def test_garbage_weights_are_one_line(tiny_model: Path, tmp_path: Path) -> None:
    import shutil

    folder = shutil.copytree(tiny_model, tmp_path / "m")
    (folder / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(InputError) as caught:
        HfModel(str(folder), SETTINGS)
    assert len(caught.value.lines) == 1
    assert "cannot be loaded" in caught.value.lines[0]


def test_a_device_that_is_not_here(tiny_model: Path) -> None:
    with pytest.raises(InputError, match=r"backend\.device: cuda:99 cannot be used here"):
        HfModel(str(tiny_model), HfBackend(device="cuda:99"))


def reward_model(tiny_model: Path, folder: Path, n_labels: int) -> str:
    torch.manual_seed(0)
    model = LlamaForSequenceClassification.from_pretrained(tiny_model, num_labels=n_labels, dtype=torch.float32)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny_model).save_pretrained(folder)
    return str(folder)


def test_classify_equals_a_plain_forward(tiny_model: Path, chat: Chat, tmp_path: Path) -> None:
    classifier = HfClassifier(reward_model(tiny_model, tmp_path, 1), SETTINGS)
    requests = [Classify(user(text), f"Answer to {text}") for text in PROMPTS]
    answers = ask(classifier, [*requests, Classify(user("x"), " ")])
    assert answers[-1] == Failure("empty", "the response is empty")
    plain = LlamaForSequenceClassification.from_pretrained(tmp_path, dtype=torch.float32).eval()
    for request, answer in zip(requests, answers, strict=False):
        ids = chat.prompt_ids(request.messages) + chat.response_ids(request.response, "end")
        with torch.inference_mode():
            expected = float(plain(torch.tensor([ids])).logits[0, 0])
        assert isinstance(answer, Value)
        assert answer.value == pytest.approx(expected, abs=1e-5)
    [unsupported] = ask(classifier, [write("x")])
    assert isinstance(unsupported, Failure)
    assert unsupported.reason == "unsupported"


NO_SECOND_QUESTION = (
    "{% for m in messages %}{% if loop.previtem and loop.previtem.role == m.role %}{{ raise_exception('take turns') }}"
    "{% endif %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TWICE = (*user("Hello"), *user("And now?"))


@pytest.mark.parametrize(
    "request_of",
    [
        lambda messages: Generate(messages, n=2, temperature=1.0, top_p=1.0, max_new_tokens=4, seed=0),
        lambda messages: Choose((user("Rate it."), messages), ("1", "2")),
        lambda messages: Embed(messages, "Yes.", (1,), ("response", "prompt")),
        lambda messages: Classify(messages, "Yes."),
    ],
    ids=["generate", "choose", "embed", "classify"],
)
def test_turns_that_the_template_refuses_are_a_failure_of_that_request_alone(
    tiny_model: Path, tmp_path: Path, request_of: Callable[[tuple[Message, ...]], Request]
) -> None:
    folder = tmp_path / "model"
    asks_classifier = isinstance(request_of(TWICE), Classify)
    if asks_classifier:
        reward_model(tiny_model, folder, 1)
    else:
        shutil.copytree(tiny_model, folder)
    (folder / "chat_template.jinja").write_text(NO_SECOND_QUESTION, "utf-8")
    strict = (HfClassifier if asks_classifier else HfModel)(str(folder), SETTINGS)
    before, refused, after = ask(strict, [request_of(user("Hello")), request_of(TWICE), request_of(user("Who?"))])
    assert refused == Failure("turns", "turn 2 is the user's, as the one before it")
    assert not isinstance(before, Failure)
    assert not isinstance(after, Failure)


def test_classifier_needs_one_trained_label(tiny_model: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no weights for score"):
        HfClassifier(str(tiny_model), SETTINGS)
    with pytest.raises(InputError, match="has 3 labels; a reward model has one"):
        HfClassifier(reward_model(tiny_model, tmp_path, 3), SETTINGS)


def test_embedded_model_answers_in_words(embedded_model: Path) -> None:
    model = HfModel(str(embedded_model), HfBackend())
    question = write("What is the capital of France?", temperature=0.0, max_new_tokens=16)
    [answer] = ask(model, [question])
    assert "Paris" in texts(answer)[0]
