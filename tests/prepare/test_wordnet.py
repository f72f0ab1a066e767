"""perpo.prepare.wordnet: WordNet is found, downloaded or copied, whole or not at all, and NLTK can read it."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import nltk
import pytest

from perpo.errors import PerpoError
from perpo.prepare import wordnet

KINDS = {"noun": "n", "verb": "v", "adj": "a", "adv": "r"}


@pytest.fixture(autouse=True)
def folders(tmp_path, monkeypatch):
    """NLTK looks nowhere, the cache is empty, nothing can be downloaded, and Debian's files are not there."""
    monkeypatch.setattr(nltk.data, "path", [])
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(nltk, "download", unreachable)
    monkeypatch.setattr(wordnet, "DEBIAN", tmp_path / "debian")
    nltk.corpus.wordnet._unload()
    yield
    nltk.corpus.wordnet._unload()


def unreachable(*_, print_error_to, **__) -> bool:
    print("[nltk_data] Error loading wordnet: the network is unreachable", file=print_error_to)
    return False


def write_files(folder: Path, *names: str) -> None:
    """One synset of two words in each part of speech, in WordNet's format, and the files named."""
    folder.mkdir(parents=True)
    head = "  1 WordNet 3.0 Copyright\n"
    for number, (kind, letter) in enumerate(KINDS.items()):
        line = (
            f"{len(head):08} {number:02} {letter} 02 big{kind} 0 great{kind} 0 000 {'00 ' * (kind == 'verb')}| alike\n"
        )
        (folder / f"data.{kind}").write_text(head + line)
        entries = (f"{word}{kind} {letter} 1 0 1 0 {len(head):08}\n" for word in ("big", "great"))
        (folder / f"index.{kind}").write_text("".join(entries))
        (folder / f"{kind}.exc").touch()
    for name in names:
        (folder / name).write_text("")


def synonyms(word: str) -> list[str]:
    return nltk.corpus.wordnet.synsets(word)[0].lemma_names()


@pytest.mark.parametrize("umask", [0o022, 0o002, 0o077])
def test_debians_files_are_copied_so_that_nltk_reads_them(tmp_path, umask: int) -> None:
    """Also where new files could be written by a group, which NLTK would refuse to read."""
    write_files(tmp_path / "debian")
    before = os.umask(umask)
    try:
        place = wordnet.find_or_fetch()
    finally:
        os.umask(before)
    assert place == tmp_path / "cache" / "perpo" / "nltk_data" / "corpora" / "wordnet" == wordnet.find()
    for kind in KINDS:
        assert synonyms(f"big{kind}") == [f"big{kind}", f"great{kind}"]
    assert nltk.corpus.wordnet.synsets("bignoun")[0].lexname() == "adj.all"  # number 00
    assert [path.name for path in place.parent.iterdir()] == ["wordnet"]


def test_debians_links_are_copied_as_files(tmp_path) -> None:
    write_files(tmp_path / "elsewhere", "index.sense")
    (tmp_path / "debian").mkdir()
    for file in (tmp_path / "elsewhere").iterdir():
        (tmp_path / "debian" / file.name).symlink_to(file)
    place = wordnet.find_or_fetch(tmp_path / "target")
    assert place == tmp_path / "target" / "corpora" / "wordnet"
    assert not any(path.is_symlink() for path in place.iterdir())
    assert synonyms("greatadv") == ["bigadv", "greatadv"]


def test_the_45_lexicographer_files_are_as_documented(tmp_path) -> None:
    """lexnames(5WN): two digits, the name, and 1 to 4 for noun, verb, adjective and adverb."""
    write_files(tmp_path / "debian")
    lines = (wordnet.find_or_fetch() / "lexnames").read_text().splitlines()
    rows = [line.split("\t") for line in lines]
    assert [row[0] for row in rows] == [f"{number:02}" for number in range(45)]
    assert {number: rows[number][1:] for number in (0, 2, 3, 18, 28, 29, 43, 44)} == {
        0: ["adj.all", "3"],
        2: ["adv.all", "4"],
        3: ["noun.Tops", "1"],
        18: ["noun.person", "1"],
        28: ["noun.time", "1"],
        29: ["verb.body", "2"],
        43: ["verb.weather", "2"],
        44: ["adj.ppl", "3"],
    }
    assert sorted(row[2] for row in rows) == sorted("1" * 26 + "2" * 15 + "3" * 3 + "4")


def test_what_nltk_finds_is_left_alone(tmp_path, monkeypatch) -> None:
    write_files(tmp_path / "mine" / "corpora" / "wordnet", "lexnames", "index.sense")
    monkeypatch.setattr(nltk.data, "path", [str(tmp_path / "mine")])
    monkeypatch.setattr(nltk, "download", None)
    assert wordnet.find_or_fetch(tmp_path / "target") == tmp_path / "mine" / "corpora" / "wordnet"
    assert not (tmp_path / "target").exists()
    assert not (tmp_path / "cache").exists()


def test_a_download_is_found_in_its_zip_file(tmp_path, monkeypatch) -> None:
    """NLTK's downloader leaves WordNet zipped."""
    write_files(tmp_path / "files", "index.sense")
    (tmp_path / "files" / "lexnames").write_text("00\tnoun.all\t1\n01\tverb.all\t2\n02\tadj.all\t3\n03\tadv.all\t4\n")

    def download(name: str, download_dir: str, **_) -> bool:
        with zipfile.ZipFile(Path(download_dir) / "corpora" / f"{name}.zip", "w") as archive:
            for file in (tmp_path / "files").iterdir():
                archive.write(file, f"wordnet/{file.name}")
        return True

    monkeypatch.setattr(nltk, "download", download)
    place = wordnet.find_or_fetch()
    assert place == wordnet.data_folder() / "corpora" / "wordnet.zip" == wordnet.find()
    assert synonyms("bigverb") == ["bigverb", "greatverb"]


@pytest.mark.parametrize("failure", [ConnectionError("no route"), SyntaxError("no XML")])
def test_no_way_to_get_it(tmp_path, monkeypatch, failure: Exception) -> None:
    assert wordnet.find() is None
    with pytest.raises(PerpoError, match="the network is unreachable") as caught:
        wordnet.find_or_fetch(tmp_path / "target")
    assert caught.value.exit_code == 3
    assert f"nltk.downloader -d {tmp_path / 'target'} wordnet" in caught.value.hint
    assert "apt-get install wordnet-base" in caught.value.hint

    def fails(*_, **__) -> bool:
        raise failure

    monkeypatch.setattr(nltk, "download", fails)
    with pytest.raises(PerpoError, match=str(failure)):
        wordnet.find_or_fetch()


def test_an_incomplete_wordnet_is_named_and_not_used(tmp_path) -> None:
    write_files(tmp_path / "target" / "corpora" / "wordnet", "index.sense")
    (tmp_path / "target" / "corpora" / "wordnet" / "data.adv").unlink()
    assert wordnet.find(tmp_path / "target") is None
    with pytest.raises(PerpoError, match=r"it lacks lexnames, data\.adv$"):
        wordnet.find_or_fetch(tmp_path / "target")


def test_a_wordnet_that_others_may_write_is_refused_with_the_reason(tmp_path) -> None:
    write_files(tmp_path / "target" / "corpora" / "wordnet", "lexnames", "index.sense")
    (tmp_path / "target" / "corpora").chmod(0o777)
    with pytest.warns(RuntimeWarning), pytest.raises(PerpoError, match="other users may write") as caught:
        wordnet.find_or_fetch(tmp_path / "target")
    assert "chmod -R go-w" in caught.value.hint


def test_a_copy_that_fails_leaves_nothing(tmp_path) -> None:
    write_files(tmp_path / "debian")
    (tmp_path / "debian" / "verb.exc").unlink()
    with pytest.raises(PerpoError, match=r"could not be copied .*verb\.exc"):
        wordnet.find_or_fetch()
    assert list((wordnet.data_folder() / "corpora").iterdir()) == []


def test_a_target_that_cannot_be_made(tmp_path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(PerpoError, match="cannot be written"):
        wordnet.find_or_fetch(tmp_path / "file" / "below")


@pytest.mark.skipif(not Path("/usr/share/wordnet/data.noun").is_file(), reason="Debian's wordnet-base is not here")
def test_the_real_files(monkeypatch) -> None:
    monkeypatch.setattr(wordnet, "DEBIAN", Path("/usr/share/wordnet"))
    wordnet.find_or_fetch()
    assert "automobile" in synonyms("car")
    assert nltk.corpus.wordnet.synsets("running", "v")[0].lexname() == "verb.motion"
