"""WordNet for METEOR: find it where NLTK looks, else fetch it, else take Debian's.

NLTK reads Princeton's database files (wndb(5WN)) from `corpora/wordnet` in one of the folders of
`nltk.data.path`. `perpo-data wordnet` puts them into perpo's cache, which `find` looks into as well.
"""

from __future__ import annotations

import contextlib
import io
import shutil
import tempfile
from pathlib import Path
from typing import Any

from perpo.common.files import cache_folder, disk_error
from perpo.errors import PerpoError

DEBIAN = Path("/usr/share/wordnet")
"""Where Debian's packages wordnet-base and wordnet-sense-index keep the files."""

_KINDS = ("noun", "verb", "adj", "adv")
_COPIED = [name for kind in _KINDS for name in (f"index.{kind}", f"data.{kind}", f"{kind}.exc")]
NEEDED = ["lexnames", "index.sense", *_COPIED]
"""The files without which NLTK cannot answer what a word's synonyms are."""

# lexnames(5WN): the lexicographer files in the order of their numbers, and the number of each part of speech.
_LEXNAMES = (
    "adj.all adj.pert adv.all noun.Tops noun.act noun.animal noun.artifact noun.attribute noun.body noun.cognition "
    "noun.communication noun.event noun.feeling noun.food noun.group noun.location noun.motive noun.object noun.person "
    "noun.phenomenon noun.plant noun.possession noun.process noun.quantity noun.relation noun.shape noun.state "
    "noun.substance noun.time verb.body verb.change verb.cognition verb.communication verb.competition "
    "verb.consumption verb.contact verb.creation verb.emotion verb.motion verb.perception verb.possession verb.social "
    "verb.stative verb.weather adj.ppl"
)
_PART_OF_SPEECH = {"noun": 1, "verb": 2, "adj": 3, "adv": 4}


def data_folder() -> Path:
    """Return where WordNet is kept by default."""
    return cache_folder() / "nltk_data"


def find(target: Path | None = None) -> Path | None:
    """Return the folder (or zip file) of WordNet, complete, or None.

    NLTK's own folders come first, then perpo's and `target`, which are added to `nltk.data.path`: NLTK
    opens no file elsewhere. It refuses folders and files that other users may write.

    Raises:
        PerpoError: NLTK is not installed.
    """
    root = _root(target)
    return None if root is None or _missing(root) else _place(root)


def find_or_fetch(target: Path | None = None) -> Path:
    """Find WordNet, or get it: by NLTK's own downloader, else by a copy of Debian's files.

    Args:
        target: The folder, laid out as NLTK's, that it is kept in; by default `data_folder()`. Other
            programs find another one through the environment variable NLTK_DATA.

    Returns:
        The folder (or zip file) of WordNet.

    Raises:
        PerpoError: NLTK is not installed, an incomplete WordNet is in the way, the folder cannot be
            written, or (exit code 3) there is no way to get it.
    """
    folder = (target or data_folder()).absolute()
    root = _root(target)
    if root is not None:
        return _complete(root)
    _check_not_refused(folder)
    try:
        _make_folder(folder / "corpora")
    except OSError as error:
        raise PerpoError(f"{folder} cannot be written: {error.strerror}", "give another folder as --target") from error
    problem = _download(folder)
    if _root(folder) is None and (DEBIAN / "data.noun").is_file():
        _copy_debian(folder / "corpora")
    root = _root(folder)
    if root is None:
        _check_not_refused(folder)
        raise PerpoError(
            f"WordNet could not be fetched ({problem}), and it is not in {DEBIAN}",
            f"with a network: python -m nltk.downloader -d {folder} wordnet; on Debian or Ubuntu: "
            "apt-get install wordnet-base, then perpo-data wordnet",
            exit_code=3,
        )
    return _complete(root)


def _root(target: Path | None) -> Any:
    """NLTK's pointer to WordNet, a folder or the inside of a zip file, or None."""
    try:
        import nltk
    except ImportError as error:
        raise PerpoError("NLTK, which reads WordNet, is not installed", "pip install 'perpo[eval]'") from error
    for folder in (data_folder(), target):
        if folder is not None and str(folder.absolute()) not in nltk.data.path:
            nltk.data.path.append(str(folder.absolute()))
    for name in ("corpora/wordnet", "corpora/wordnet.zip/wordnet/"):
        with contextlib.suppress(LookupError):
            return nltk.data.find(name)
    return None


def _check_not_refused(folder: Path) -> None:
    """Say why NLTK does not see what is there."""
    place = folder / "corpora" / "wordnet"
    if place.is_dir():
        raise PerpoError(
            f"NLTK does not read {place}, because other users may write to it or to a folder above it",
            f"run chmod -R go-w {folder}, or give another folder as --target",
        )


def _place(root: Any) -> Path:
    return Path(root.zipfile.filename if hasattr(root, "zipfile") else root.path)


def _missing(root: Any) -> list[str]:
    missing = []
    for name in NEEDED:
        try:
            root.join(name)
        except OSError:
            missing.append(name)
    return missing


def _complete(root: Any) -> Path:
    if missing := _missing(root):
        raise PerpoError(
            f"{_place(root)} is an incomplete WordNet: it lacks {', '.join(missing)}",
            "delete it and run this command again",
        )
    return _place(root)


def _download(folder: Path) -> str:
    """Let NLTK's downloader put WordNet into a folder; returns what went wrong, for what it prints is kept back."""
    import nltk

    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        try:
            nltk.download("wordnet", download_dir=str(folder), quiet=True, print_error_to=said)
        except (OSError, ValueError, SyntaxError) as error:  # SyntaxError: what came is no XML, as behind a log-in page
            return f"{type(error).__name__}: {error}"
    words = said.getvalue().replace("[nltk_data]", "").split()
    return " ".join(words)[:200] or "NLTK's downloader gave no reason"


def _copy_debian(corpora: Path) -> None:
    """Copy (NLTK refuses links) Debian's files and write the two that its packages may lack, all or nothing."""
    part = Path(tempfile.mkdtemp(dir=corpora, prefix=".wordnet."))
    try:
        for name in _COPIED:
            shutil.copyfile(DEBIAN / name, part / name)
        if (DEBIAN / "index.sense").is_file():
            shutil.copyfile(DEBIAN / "index.sense", part / "index.sense")
        else:
            (part / "index.sense").touch()  # it only maps other versions of WordNet to this one
        (part / "lexnames").write_text(_lexnames(), encoding="ascii")
        for file in part.iterdir():
            file.chmod(0o644)
        part.chmod(0o755)
        part.rename(corpora / "wordnet")
    except OSError as error:
        place = corpora / "wordnet"
        raise disk_error(error, place) or PerpoError(
            f"{DEBIAN} could not be copied to {place}: {error}", "check that this folder can be written to"
        ) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _lexnames() -> str:
    lines = (f"{i:02}\t{name}\t{_PART_OF_SPEECH[name.split('.')[0]]}\n" for i, name in enumerate(_LEXNAMES.split()))
    return "".join(lines)


def _make_folder(folder: Path) -> None:
    """Make a folder and those above it, none of which its group may write, whatever the umask: NLTK would refuse it."""
    for part in reversed([folder, *folder.parents]):
        part.mkdir(mode=0o755, exist_ok=True)
