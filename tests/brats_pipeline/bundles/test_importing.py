"""Bundles from elsewhere: hostile ones are refused, each with its reason, and nothing of them happens."""

from __future__ import annotations

import io
import json
import os
import pickle
import shutil
import stat
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from brats_pipeline.bundles.importing import import_bundle
from brats_pipeline.bundles.sums import SUMS, write_sums
from brats_pipeline.errors import PipelineError

Spoil = Callable[[Path], None]
TOUCH = "__import__('pathlib').Path('CANARY').touch()"


class Canary:
    """Writes a file as soon as it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("CANARY"),)


def write_bundle(folder: Path) -> Path:
    """A small bundle with weights, of plain values only."""
    import torch

    (folder / "configs").mkdir(parents=True)
    (folder / "models").mkdir()
    (folder / "configs" / "metadata.json").write_text(json.dumps({"version": "0.1.0"}), encoding="utf-8")
    (folder / "configs" / "inference.yaml").write_text(
        yaml.safe_dump({"imports": ["$import torch"], "bundle_root": ".", "x": "$@bundle_root + '/eval'"}),
        encoding="utf-8",
    )
    (folder / "LICENSE").write_text("Apache-2.0\n", encoding="utf-8")
    torch.save({"weight": torch.ones(2)}, folder / "models" / "model.pt")
    return folder


def configured(**content: Any) -> Spoil:
    """Adds ids to the configuration."""

    def spoil(bundle: Path) -> None:
        path = bundle / "configs" / "inference.yaml"
        path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), **content}), encoding="utf-8")

    return spoil


def holding(name: str, content: str | bytes) -> Spoil:
    """Adds a file."""

    def spoil(bundle: Path) -> None:
        path = bundle / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)

    return spoil


def pickled(bundle: Path) -> None:
    (bundle / "models" / "model.pt").write_bytes(pickle.dumps(Canary()))


def pickled_by_torch(bundle: Path) -> None:
    import torch

    torch.save({"weight": Canary()}, bundle / "models" / "model.pt")


def packed_tighter(bundle: Path) -> None:
    """Weights of zeros, each record deflated, as no program writes them: 8 MB in some kilobytes."""
    import torch

    torch.save({"weight": torch.zeros(2_000_000)}, plain := bundle.parent / "plain.pt")
    with (
        zipfile.ZipFile(plain) as given,
        zipfile.ZipFile(bundle / "models" / "model.pt", "w", zipfile.ZIP_DEFLATED) as target,
    ):
        for info in given.infolist():
            target.writestr(info.filename, given.read(info))
    plain.unlink()


def zipped(folder: Path, target: Path) -> Path:
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                archive.write(path, path.relative_to(folder.parent))
    return target


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


LOGGING = "[handlers]\nkeys=one\n[handler_one]\nclass=StreamHandler\nargs=(open('CANARY', 'w'),)\n"
HOSTILE: dict[str, tuple[Spoil, str]] = {
    "os.system in an expression": (configured(evil="$__import__('os').system('touch CANARY')"), "calls"),
    "os.system by an import": (
        configured(imports=["$import os"], evil="$os.system('touch CANARY')"),
        "evil calls os.system",
    ),
    "exec as a target": (configured(evil={"_target_": "builtins.exec"}), "'builtins.exec', which is not on the list"),
    "a process as a target": (configured(evil={"_target_": "subprocess.run", "args": ["x"]}), "'subprocess.run'"),
    "a shell as a target": (configured(evil={"_target_": "os.system", "command": "x"}), "'os.system'"),
    "a function in a string": (
        configured(evil={"_target_": "monai.transforms.Lambdad", "keys": "x", "func": f"$lambda x: {TOUCH}"}),
        "defines a function",
    ),
    "dunder attributes": (configured(evil="$().__class__.__base__.__subclasses__()"), "method .__subclasses__()"),
    "a string that turns into code": (configured(f=1, u=2, evil=f"$'@f {{{TOUCH}}} @u'"), "evil"),
    "metadata that is configuration": (holding("configs/metadata.json", json.dumps({"version": f"${TOUCH}"})), "calls"),
    "pickled code in place of weights": (pickled, "models/model.pt: is damaged, or holds more than tensors"),
    "pickled code among weights": (pickled_by_torch, "models/model.pt: is damaged, or holds more than tensors"),
    "weights that are a bomb": (packed_tighter, "models/model.pt: unpacks to more bytes than it has, as a bomb does"),
    "logging that evaluates": (holding("configs/logging.conf", LOGGING), "[handler_one] makes Python evaluate args"),
    "a Python file": (holding("scripts/__init__.py", TOUCH), "scripts/__init__.py: is a program"),
    "a Python file that stands for a library": (holding("torch.py", TOUCH), "torch.py: is a program"),
    "TorchScript": (holding("models/model.ts", b"PK"), "models/model.ts: is a TorchScript program"),
    "an object of YAML": (
        holding("configs/train.yaml", "a: !!python/object/apply:os.mkdir [CANARY]\n"),
        "asks YAML to make an object",
    ),
    "pickled data": (holding("data/x.npy", b"\x93NUMPY"), "data/x.npy: is of a kind that can hold pickled objects"),
}


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("pack", [True, False], ids=["zip", "folder"])
def test_a_hostile_bundle_is_refused_with_its_reason_and_nothing_happens(name: str, pack: bool, tmp_path: Path) -> None:
    spoil, reason = HOSTILE[name]
    bundle = write_bundle(tmp_path / "given" / "evil")
    spoil(bundle)
    write_sums(bundle)
    source = zipped(bundle, tmp_path / "evil.zip") if pack else bundle
    with pytest.raises(PipelineError) as refused:
        import_bundle(source, tmp_path / "taken")
    assert reason in str(refused.value)
    assert not list(tmp_path.rglob("CANARY"))
    assert {path.name for path in tmp_path.iterdir()} == {"given"} | ({"evil.zip"} if pack else set())


@pytest.mark.parametrize("spoil", [pickled, pickled_by_torch, packed_tighter])
def test_no_trust_lets_pickled_code_or_a_bomb_in(spoil: Spoil, tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "evil")
    spoil(bundle)
    with pytest.raises(PipelineError, match="never taken over"):
        import_bundle(bundle, tmp_path / "taken", trust=True)
    assert not (tmp_path / "CANARY").exists()


def member(name: str, mode: int = 0, content: bytes = b"x") -> tuple[zipfile.ZipInfo, bytes]:
    info = zipfile.ZipInfo("placeholder")
    info.filename = info.orig_filename = name
    info.external_attr = mode << 16
    return info, content


MEMBERS: dict[str, tuple[list[tuple[zipfile.ZipInfo, bytes]], str]] = {
    "a way up": ([member("../CANARY")], "leads out"),
    "a way up within": ([member("evil/../../CANARY")], "leads out"),
    "an absolute name": ([member("/tmp/CANARY")], "leads out"),
    "a drive": ([member("C:/CANARY")], "leads elsewhere"),
    "backslashes": ([member("..\\CANARY")], "leads elsewhere"),
    "a stream": ([member("evil/x.md:CANARY")], "leads elsewhere"),
    "a device": ([member("evil/nul.md")], "means something else"),
    "a symbolic link": ([member("evil/link", stat.S_IFLNK | 0o777, b"/etc")], "is a symbolic link"),
    "a pipe": ([member("evil/pipe", stat.S_IFIFO | 0o666)], "neither file nor folder"),
    "a name twice": ([member("evil/a.md"), member("evil/a.md")], "have one name"),
    "a name in another case": ([member("evil/a.md"), member("evil/A.md")], "have one name"),
    "a name in another script": ([member("evil/a.md"), member("evil/\uff41.md")], "have one name"),
    "a file that is a folder": ([member("evil/a.md"), member("evil/a.md/b.md")], "is a file and a folder"),
}


@pytest.mark.parametrize("name", MEMBERS)
def test_an_archive_that_leads_elsewhere_is_refused_even_with_trust(name: str, tmp_path: Path) -> None:
    members, reason = MEMBERS[name]
    source = zipped(write_bundle(tmp_path / "given" / "evil"), tmp_path / "evil.zip")
    with zipfile.ZipFile(source, "a") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a name twice
        for info, content in members:
            archive.writestr(info, content)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(PipelineError, match="is refused") as refused:
        import_bundle(source, tmp_path / "taken" / "deeper", trust=True)
    assert reason in str(refused.value)
    assert sorted(tmp_path.rglob("*")) == before
    assert not (tmp_path.parent / "CANARY").exists()


def test_a_bomb_is_refused_by_what_it_declares(tmp_path: Path) -> None:
    source = zipped(write_bundle(tmp_path / "evil"), tmp_path / "evil.zip")
    with zipfile.ZipFile(source, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("evil/zeros.md", bytes(8 * 2**20))
    with pytest.raises(PipelineError, match="200 times as much"):
        import_bundle(source, tmp_path / "taken", trust=True)


def test_a_bundle_that_is_too_large_is_refused(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "evil")
    for source in (bundle, zipped(bundle, tmp_path / "evil.zip")):
        with pytest.raises(PipelineError, match=r"more than 1000;|or 1000 bytes"):
            import_bundle(source, tmp_path / "taken", trust=True, max_bytes=1000)


def test_a_bomb_that_lies_about_its_size_is_refused_while_it_unpacks(tmp_path: Path) -> None:
    """The declared sizes are set to one byte in the archive's directory and at the member itself."""
    source = zipped(write_bundle(tmp_path / "evil"), tmp_path / "evil.zip")
    size = 2**20 + 7
    with zipfile.ZipFile(source, "a", zipfile.ZIP_STORED) as archive:
        archive.writestr("evil/zeros.md", os.urandom(size))
    content = source.read_bytes().replace(size.to_bytes(4, "little"), (1).to_bytes(4, "little"))
    source.write_bytes(content)
    with pytest.raises(PipelineError, match="is refused"):
        import_bundle(source, tmp_path / "taken", trust=True)
    assert not (tmp_path / "taken").exists()


def test_a_folder_with_a_symbolic_link_is_refused(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "evil")
    (bundle / "docs").symlink_to("/etc")
    with pytest.raises(PipelineError, match="docs is a symbolic link"):
        import_bundle(bundle, tmp_path / "taken", trust=True)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (holding("LICENSE", "changed"), "LICENSE has other bytes"),
        (holding("docs/more.md", "x"), "docs/more.md has no sum"),
        (lambda bundle: (bundle / "LICENSE").unlink(), "LICENSE is missing"),
        (holding(SUMS, "no sums"), "is damaged"),
        (holding(SUMS, f"{'0' * 64}  \x1b[2Jdocs/x.md\n"), "is damaged"),
    ],
)
def test_what_differs_from_its_sums_is_refused_even_with_trust(spoil: Spoil, reason: str, tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "given")
    write_sums(bundle)
    spoil(bundle)
    with pytest.raises(PipelineError, match=reason):
        import_bundle(bundle, tmp_path / "taken", trust=True)


def test_a_bundle_arrives_byte_for_byte(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "given" / "good")
    write_sums(bundle)
    imported = import_bundle(zipped(bundle, tmp_path / "packed.zip"))
    assert imported.path == tmp_path / "good"
    assert imported.hashed
    assert not imported.trusted
    theirs = {path.relative_to(bundle): path.read_bytes() for path in bundle.rglob("*") if path.is_file()}
    ours = {path.relative_to(imported.path): path.read_bytes() for path in imported.path.rglob("*") if path.is_file()}
    assert ours == theirs


def test_a_bundle_without_sums_takes_trust(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "given")
    with pytest.raises(PipelineError, match="there is no SHA256SUMS"):
        import_bundle(bundle, tmp_path / "taken")
    assert not import_bundle(bundle, tmp_path / "taken", trust=True).hashed


def test_trust_takes_over_what_is_listed(tmp_path: Path, command: Any) -> None:
    bundle = write_bundle(tmp_path / "given")
    holding("scripts/net.py", TOUCH)(bundle)
    write_sums(bundle)
    refused = command("bundle", "import", bundle, "-o", tmp_path / "taken")
    assert refused.code == 2
    assert "scripts/net.py: is a program" in refused.err
    assert "--trust" in refused.err
    taken = command("bundle", "import", bundle, "-o", tmp_path / "taken", "--trust")
    assert taken.code == 0
    assert taken.out.strip() == f"bundle: {tmp_path / 'taken'}"
    assert "trusted: scripts/net.py: is a program" in taken.err
    assert not list(tmp_path.rglob("CANARY"))


def test_a_key_cannot_hide_what_is_found_from_the_reader(tmp_path: Path, command: Any) -> None:
    """A terminal would clear itself, go up a line or turn the text around; a line break would start a finding."""
    bundle = write_bundle(tmp_path / "given")
    configured(**{"\x1b[2J\x1b[1A\u202eevil\n  all is well": "$open('CANARY', 'w')"})(bundle)
    write_sums(bundle)
    refused = command("bundle", "import", bundle, "-o", tmp_path / "taken")
    assert refused.code == 2
    assert "\\x1b[2J\\x1b[1A\\u202eevil\\n  all is well calls open" in refused.err
    assert all(line.isprintable() for line in refused.err.splitlines())


def test_an_existing_folder_is_left_alone(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "given")
    write_sums(bundle)
    (tmp_path / "taken").mkdir()
    with pytest.raises(PipelineError, match="exists already"):
        import_bundle(bundle, tmp_path / "taken")
    assert not list((tmp_path / "taken").iterdir())


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"no archive"])
def test_what_is_no_archive_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.zip").write_bytes(content)
    with pytest.raises(PipelineError, match="no ZIP file"):
        import_bundle(tmp_path / "x.zip", tmp_path / "taken", trust=True)


def test_what_holds_no_bundle_is_refused(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a/readme.md", "x")
        archive.writestr("b/readme.md", "x")
    (tmp_path / "x.zip").write_bytes(buffer.getvalue())
    with pytest.raises(PipelineError, match=r"no configs/metadata\.json"):
        import_bundle(tmp_path / "x.zip", tmp_path / "taken", trust=True)
    shutil.rmtree(tmp_path / "taken", ignore_errors=True)
