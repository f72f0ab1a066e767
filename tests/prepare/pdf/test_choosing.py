"""Each page once, and documents as a whole for training or for evaluation."""

import hashlib

from perpo.prepare.pdf.choosing import choose_pages, split_documents, text_key


def _document(name, *pages):
    found = [
        {"page": number, "image": f"{name}-{number}", "text": text, "pixels": pixels, "lost": 0, "columns": 1}
        for number, (text, pixels) in enumerate(pages, start=1)
    ]
    return name, hashlib.sha256(name.encode()).hexdigest(), {"pages": found}


def test_texts_that_differ_in_digits_spaces_and_capitals_are_one():
    assert text_key(f"Page 12\nof the Form {'x' * 40}") == text_key(f"page 3 of THE form {'x' * 40}")
    assert text_key("Total 1,250 1,300") != text_key("Total 1,250 1,400")
    assert text_key("a page") != text_key("b page")


def test_the_first_of_like_pages_stays():
    one = _document("a", ("the text of the first page 1", "p"), ("two", "q"))
    two = _document("b", ("The text of the first page 2", "r"), ("three", "q"), ("four", "s"))
    first, second = choose_pages([one, two])
    assert [page.number for page in first.pages] == [1, 2]
    assert [page.number for page in second.pages] == [3]
    assert second.left_out == [(1, "same_text", "a, page 1"), (2, "same_picture", "a, page 2")]
    assert second.alike == {first.sha256}


def _split(documents, share, seed=0):
    chosen = choose_pages(documents)
    split_documents(chosen, share, seed)
    return {document.name: document.evaluation for document in chosen}


def test_the_split_is_the_digests_and_stays_when_documents_are_added():
    documents = [_document(str(number), (f"text {'x' * number}", str(number))) for number in range(400)]
    split = _split(documents, 0.25, seed=3)
    for name, sha256, _ in documents:
        expected = int(hashlib.sha256(f"3:{sha256}".encode()).hexdigest()[:16], 16) / 2**64 < 0.25
        assert split[name] is expected
    assert _split(documents[:100], 0.25, seed=3).items() <= split.items()
    assert _split(documents, 0.25, seed=4) != split
    assert not any(_split(documents, 0).values())
    assert all(_split(documents, 1).values())


def test_documents_with_a_page_in_common_go_together():
    documents = [
        _document(f"{number}{part}", (f"own {'x' * number}{part}", f"{number}{part}"), (f"shared {'y' * number}", "0"))
        for number in range(60)
        for part in "abc"
    ]
    documents = [
        (name, sha, {"pages": [page | {"pixels": name + page["image"]} for page in found["pages"]]})
        for name, sha, found in documents
    ]
    split = _split(documents, 0.5)
    assert all(split[f"{number}a"] == split[f"{number}b"] == split[f"{number}c"] for number in range(60))
    assert 10 < sum(split[f"{number}a"] for number in range(60)) < 50
