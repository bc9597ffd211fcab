"""The prompt: byte for byte the dataset's, cut only in the product text, whatever the text holds."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pricer.errors import InputError
from pricer.prompt import build_prompt, clean, completion, frame, is_framed, product_text

LIMIT = 1_000_000
# Text as people paste it: any script, emoji of several code points, blank lines, prompts of our own.
WILD = st.text(max_size=400) | st.lists(
    st.sampled_from(
        ["🧑‍🚀", "كرسي ", "椅子", "e\u0301", "\n\n", "Price is $", "?", " ", "\t", "42", "drill "]
    ),
    max_size=60,
).map("".join)


def cleaned(text):
    """What `clean` makes of it, or None where it refuses."""
    try:
        return clean(text, max_chars=LIMIT)
    except InputError:
        return None


# --- the format ----------------------------------------------------------------------------------


def test_the_prompt_is_the_datasets_byte_for_byte():
    # A row of ed-donner/pricer-data in its form: question, blank line, text, blank line, tail.
    expected = (
        b"How much does this cost to the nearest dollar?\n\n"
        b"Delphi FG0166 Fuel Pump Module\nDelphi brings 80 years of OE Heritage\n\n"
        b"Price is $"
    )
    assert frame("Delphi FG0166 Fuel Pump Module\nDelphi brings 80 years of OE Heritage").encode() == expected


def test_the_question_can_be_another():
    assert frame("x", "What does this cost?") == "What does this cost?\n\nx\n\nPrice is $"


@given(WILD, st.sampled_from(["How much does this cost to the nearest dollar?", "What is it worth?"]))
@example("a\n\nPrice is $", "What is it worth?")
@example("Really?\n\nYes", "What is it worth?")
def test_product_text_is_the_inverse_of_frame(text, question):
    text = cleaned(text)
    if text is not None:
        assert product_text(frame(text, question)) == text


@pytest.mark.parametrize(
    "behind",
    [
        "5.00",
        "5.00.",
        "5.00</s>",
        "5.00 USD",
        " 5",
        "1,299.00<|end_of_text|>",
        "5.00\n\nThanks!",
        "5,00",
        "five",
        "</s>",
    ],
)
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_no_answer_leaks_into_a_text_whatever_stands_behind_it(behind, newline):
    framed = (frame("Saw big\nmade of steel") + behind).replace("\n", newline)
    assert product_text(framed) == "Saw big\nmade of steel"
    unframed = framed.partition(newline * 2)[2]
    assert product_text(unframed) == "Saw big\nmade of steel"
    assert is_framed(framed) and is_framed(unframed)


def test_a_price_in_running_text_is_text():
    for prose in (
        "Lamp. The price is $5 only.",
        "Sale! Price is $5 lower than last year, while stocks last.",
        "Price is $5 apiece\nA lamp\nof brass",
    ):
        assert product_text(prose) == prose and not is_framed(prose)


def test_product_text_of_a_training_row_and_of_bare_text():
    assert product_text("How much?\n\nA lamp\n\nPrice is $") == "A lamp"
    assert product_text("How much?\n\nA lamp\n\nPrice is $\n") == "A lamp"
    assert product_text("A lamp\n\nPrice is $") == "A lamp"
    assert product_text(" A lamp? \n\n With shade ") == "A lamp? \n\n With shade"


# --- the completion ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("price", "text"),
    [
        (12.49, "12.00"),
        (12.51, "13.00"),
        (12.5, "12.00"),  # Python's rounding, which the dataset was made with
        (13.5, "14.00"),
        (0.01, "1.00"),
        (0, "1.00"),
        (-5, "1.00"),
        (999, "999.00"),
        (999.49, "999.00"),
        (999.51, "999.00"),
        (12345, "999.00"),
        (7, "7.00"),
    ],
)
def test_the_completion_is_rounded_and_kept_in_range(price, text):
    assert completion(price) == text


# --- cleaning ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text", ["", " ", "\n\t \r\n", "\x00\x01", "\ud83d", "\u00a0\u3000", "\u200b", "\u200f \u2066\n"]
)
def test_nothing_to_read_is_refused(text):
    with pytest.raises(InputError) as caught:
        clean(text, max_chars=LIMIT)
    assert str(caught.value) == "There is no text yet; paste a product's title or description first."


@pytest.mark.parametrize("text", [None, 12.5, b"bytes", ["a"], float("nan")])
def test_what_is_no_text_is_refused(text):
    with pytest.raises(InputError, match="must be text"):
        clean(text, max_chars=LIMIT)


def test_too_much_text_is_refused_with_both_numbers():
    assert clean("x" * 1000, max_chars=1000) == "x" * 1000
    with pytest.raises(InputError, match=r"1,001 characters; paste at most 1,000"):
        clean("x" * 1001, max_chars=1000)


def test_control_characters_and_surrogates_go_and_the_rest_stays():
    assert clean("\x00a\x07b\x1b[0m\ud800c\udfffd\x7f\x0b\x0c", max_chars=LIMIT) == "ab[0mcd"
    assert clean("\ufeffa", max_chars=LIMIT) == "a"
    assert clean("a\r\nb\rc\td\n\ne\x0bf\x0cg", max_chars=LIMIT) == "a\nb\nc\td\n\ne\nf\ng"
    for kept in (
        "🧑‍🚀 suit",
        "كرسي خشبي",
        "שולחן \u200fעץ",
        "\u202bكرسي\u202c",
        "e\u0301tage\u0300re",
        "椅子 100円",
    ):
        assert clean(f"  {kept}\n", max_chars=LIMIT) == kept


@given(st.text(alphabet=st.characters(), max_size=200))
def test_what_is_cleaned_can_be_encoded_and_cleaning_again_changes_nothing(text):
    once = cleaned(text)
    if once is not None:
        once.encode("utf-8")
        assert clean(once, max_chars=LIMIT) == once


# --- the cut -------------------------------------------------------------------------------------


def tokens(tokenizer, text):
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def test_text_within_the_budget_is_whole(llama3_tokenizer):
    prompt = build_prompt("A wooden chair", llama3_tokenizer)
    assert (prompt.text, prompt.kept_chars, prompt.truncated) == (frame("A wooden chair"), 14, False)


def test_the_budget_is_met_exactly_and_one_token_more_is_cut(llama3_tokenizer):
    text = " ".join(["chair"] * 20)
    assert len(tokens(llama3_tokenizer, text)) == 20
    assert not build_prompt(text, llama3_tokenizer, max_text_tokens=20).truncated
    cut = build_prompt(text, llama3_tokenizer, max_text_tokens=19)
    assert cut.truncated
    assert cut.text == frame(" ".join(["chair"] * 19))
    assert cut.kept_chars == len(" ".join(["chair"] * 19))


@given(
    WILD,
    st.integers(8, 40),
    st.sampled_from(["What is it worth?", "How much does this cost to the nearest dollar?"]),
)
@example("🧑‍🚀🪩🫠" * 30, 20, "What is it worth?")
@example("a" + " " * 9000 + "b", 8, "What is it worth?")
def test_the_cut_falls_on_a_tokens_edge_and_never_cuts_the_tail(llama3_tokenizer, text, budget, question):
    text = cleaned(text)
    if text is None:
        return
    prompt = build_prompt(text, llama3_tokenizer, question=question, max_text_tokens=budget)
    kept = text[: prompt.kept_chars]
    assert prompt.text == frame(kept, question)
    assert prompt.truncated == (kept != text)
    assert len(tokens(llama3_tokenizer, kept)) <= budget
    whole = llama3_tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    if len(whole) <= budget and len(text) <= 64 * budget:
        assert kept == text
    if prompt.truncated:
        assert kept == kept.rstrip()
        # The edge is between two tokens of the whole text (blanks at the edge are dropped).
        edges = {len(text[:end].rstrip()) for _, end in whole}
        assert prompt.kept_chars in edges


@pytest.mark.parametrize("text", ["word " * 40_000, "a" * 200_000, "🪩" * 100_000, "كرسي خشبي " * 20_000])
def test_200000_characters_are_cut_fast_and_to_the_budget(llama3_tokenizer, text):
    seen = []

    class Watched:
        def __call__(self, text, **options):
            seen.append(len(text))
            return llama3_tokenizer(text, **options)

    text = clean(text, max_chars=LIMIT)
    prompt = build_prompt(text, Watched())
    assert prompt.truncated
    assert 100 < len(tokens(llama3_tokenizer, product_text(prompt.text))) <= 160
    assert prompt.text.endswith("\n\nPrice is $")
    assert max(seen) <= 160 * 64  # the whole of it is never tokenised


def test_a_cut_emoji_never_leaves_half_a_character(llama3_tokenizer):
    text = "🧑‍🚀🪩🫠" * 100
    for budget in range(20, 40):
        kept = product_text(build_prompt(text, llama3_tokenizer, max_text_tokens=budget).text)
        assert text.startswith(kept) and len(tokens(llama3_tokenizer, kept)) <= budget
