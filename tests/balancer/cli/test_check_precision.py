"""`chorus check-precision`: with the real measuring program on a tiny checkpoint, and with stand-ins."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest
from rich.console import Console
from typer.testing import CliRunner, Result

from balancer.cli import check_precision, precision_report
from balancer.cli.main import app
from balancer.host.calibration_run import TEXTS
from tests.support.checkpoint_files import write
from tests.support.harness import ROOT, TIMEOUT, environment, wait_until
from tests.support.precisions import SUPPORTED
from tests.support.shared_folder import with_kernels
from tests.support.tiny_models import TinyCheckpoint
from worker.checkpoints.catalogue import CHECKPOINTS, MEANFLOW
from worker.precision import Processor

CHORUS = str(Path(sys.executable).with_name("chorus"))


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of voices with `default` and one of another engine; a wide terminal, no other variables."""
    for name in os.environ:
        if name.startswith("CHORUS_"):
            monkeypatch.delenv(name)
    voices = tmp_path / "voices"
    for name, engine in (("default", "*"), ("bird", "hibari")):
        (voices / name).mkdir(parents=True)
        (voices / name / "voice.toml").write_text(f'name = "{name}"\nengine = "{engine}"\nsynthetic = true\n')
    monkeypatch.setenv("CHORUS_VOICES_DIR", str(voices))
    monkeypatch.setenv("CHORUS_CACHE_DIR", str(with_kernels(tmp_path / "cache")))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("COLUMNS", "120")
    return voices


@pytest.fixture
def unloadable(tmp_path: Path) -> str:
    """A folder of files that look like Turbo's checkpoint but do not load."""
    return str(write(CHECKPOINTS["turbo"], tmp_path / "model"))


def run(*arguments: str) -> Result:
    result = CliRunner().invoke(app, ["check-precision", *arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def replace_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    """Replaces the measuring program."""
    program = tmp_path / "program.py"
    program.write_text(f"import json, os, sys\ndef tell(**event): print(json.dumps(event), flush=True)\n{code}\n")
    monkeypatch.setattr(check_precision, "PROGRAM", (str(program),))


def made_up(fitness: str = "close", **changed: Any) -> dict[str, Any]:
    """A made-up report on int8."""
    figures = {
        "steps": 120,
        "logitLargest": 0.01772,
        "logitMean": 0.00288,
        "divergenceMean": 0.002829,
        "divergenceLargest": 0.006771,
        "agreement": 0.9216,
        "clearSteps": 40,
        "clearAgreement": 1.0,
        "drawAgreement": 0.9314,
        "frames": 300,
        "melMean": 0.027341,
        "melLargest": 0.131323,
        "melCepstral": 0.12,
        "vocoderRatio": 119.23,
        "speakerSimilarity": None,
        "wordErrors": {"errors": 7, "words": 25},
    } | changed
    texts = [{"text": text, "figures": figures} for text in ("[laugh] The ferry leaves at seven.", "Nobody knew.")]
    verdict = {"fitness": fitness, "reasons": ["mel-cepstral distance: 0.12 dB (at most 1.00 dB)"]}
    return {
        "engine": "turbo",
        "model": "turbo from /[models]/turbo",
        "voice": "default",
        "seed": 0,
        "flow": "",
        "speechSeconds": 4.32,
        "stock": {"errors": 5, "words": 25},
        "precisions": [{"precision": "int8", "verdict": verdict, "figures": figures, "texts": texts}],
        "fit": fitness != "not recommended",
        "notes": ["word error rates [say] little"],
    }


def shown(report: dict[str, Any], width: int = 140) -> str:
    console = Console(file=io.StringIO(), width=width)
    precision_report.show(report, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def rows(output: str) -> dict[str, list[str]]:
    """The rows of the tables: further cells by first cell."""
    lines = [[cell.strip() for cell in line.split("│")[1:-1]] for line in output.splitlines() if line.startswith("│")]
    return {first: rest for first, *rest in lines}


# The real measuring program


def test_precisions_of_a_checkpoint(
    tiny_checkpoint: TinyCheckpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CHORUS_THREADS", "1")  # the layers of a tiny model are too small for more
    text = ("--text", "Where is it?", "--max-tokens", "8")
    result = run("--engine", "turbo", "--model-dir", str(tiny_checkpoint("turbo")), *text, "--json")
    assert (result.exit_code, result.stderr) == (0, "")
    assert any((tmp_path / "cache" / "kernels").rglob("attention_fp32.*.nbc")), "the next run finds compiled kernels"
    report = json.loads(result.stdout)
    assert report["fit"]
    assert [each["precision"] for each in report["precisions"]] == list(SUPPORTED)
    fp32 = report["precisions"][0]
    assert fp32["verdict"]["fitness"] == "equal"
    assert fp32["figures"]["steps"] == 8 + 1
    assert fp32["figures"]["logitLargest"] < 1e-5
    assert [text["text"] for text in fp32["texts"]] == ["Where is it?"]
    assert report["stock"]["words"] == 3
    assert fp32["figures"]["wordErrors"] == report["stock"]
    assert "does not understand upstream's own speech" in report["notes"][0]
    listed = rows(shown(report))
    assert listed["verdict"][0] == "equal"
    assert listed["next token: same most likely token"][0] == "100.00%"


def test_weights_that_do_not_load(unloadable: str) -> None:
    result = run("--engine", "turbo", "--model-dir", unloadable)
    assert result.exit_code == 2
    assert result.stderr.startswith(f"chorus: the checkpoint in {unloadable} does not load as turbo: ")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_measuring_program_ends_with_the_command(number: int, unloadable: str, folder: Path) -> None:
    """For example while it loads its libraries."""
    command = [CHORUS, "check-precision", "--engine", "turbo", "--model-dir", unloadable]
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment(voices_dir=folder), stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    with process:
        wait_until(lambda: bool(psutil.Process(process.pid).children()))
        (child,) = psutil.Process(process.pid).children()
        process.send_signal(number)
        assert process.wait(TIMEOUT) == check_precision.EXIT_INTERRUPTED
    wait_until(lambda: not child.is_running())


# Options


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--engine", "parrot"], "CHORUS_ENGINE: there is no such engine; there are: "),
        (
            ["--engine", "hibari"],
            "engine hibari has only one precision; choose another one with --engine: chatterbox, turbo",
        ),
        (["--engine", "nano"], "nano's weights are not on this host; run: chorus models download nano"),
        (["--engine", "turbo", "--model-dir", "/nowhere"], "the folder of turbo's weights, /nowhere, does not exist"),
        (["--voice", "bob"], "there is no voice 'bob'; there are: bird, default"),
        (["--voice", "bird"], "engine turbo does not support the voice 'bird'"),
        (["--language", "fr"], "engine turbo speaks English only"),
        (["--text", "Hello.", "--text", " "], "text 2 is empty"),
        (["--text", "far " * 151], "text 1 (far far far far far far far fa…) has 604 characters; engine turbo accepts"),
        (["--texts", "absent.txt"], "cannot read the texts in absent.txt: No such file or directory"),
    ],
)
def test_bad_input(arguments: list[str], message: str, unloadable: str) -> None:
    turbo = [] if "--engine" in arguments else ["--engine", "turbo", "--model-dir", unloadable]
    result = run(*turbo, *arguments)
    assert result.exit_code == 2
    assert result.stderr.startswith(f"chorus: {message}")
    assert result.stdout == ""


@pytest.mark.parametrize(
    ("content", "message"), [(b"\n \n", "there is no text in "), (b"\xff\xfe", "cannot read the texts")]
)
def test_a_file_without_texts(content: bytes, message: str, unloadable: str, tmp_path: Path) -> None:
    texts = tmp_path / "texts.txt"
    texts.write_bytes(content)
    result = run("--engine", "turbo", "--model-dir", unloadable, "--texts", str(texts))
    assert result.exit_code == 2
    assert result.stderr.startswith(f"chorus: {message}")
    assert str(texts) in result.stderr


@pytest.mark.parametrize(
    "arguments",
    [["--precision", "fp16"], ["--seed", "-1"], ["--max-tokens", "0"], ["--engine"], ["loudly"]],
)
def test_a_wrong_command_line(arguments: list[str]) -> None:
    assert run(*arguments).exit_code == 2


def test_a_precision_that_this_processor_lacks(unloadable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check_precision, "detect_processor", lambda: Processor("Old One", frozenset()))
    result = run("--engine", "turbo", "--model-dir", unloadable, "--precision", "fp32", "--precision", "int8")
    assert result.exit_code == 2
    assert result.stderr.startswith("chorus: precision int8 needs a processor with AVX2")


def test_an_extra_that_is_not_installed(unloadable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check_precision, "missing_extra", lambda _: "engine turbo needs the extra")
    result = run("--engine", "turbo", "--model-dir", unloadable)
    assert (result.exit_code, result.stderr) == (2, "chorus: engine turbo needs the extra\n")


def test_a_language_that_the_engine_does_not_support(tmp_path: Path) -> None:
    model = write(CHECKPOINTS["multilingual"], tmp_path / "several")
    result = run("--engine", "multilingual", "--model-dir", str(model), "--language", "tlh")
    assert result.exit_code == 2
    assert result.stderr.startswith("chorus: engine multilingual does not speak 'tlh'; it speaks: ar, da, ")


ECHO = "tell(refused=json.dumps([sys.argv[1:], json.load(sys.stdin)])); sys.exit(2)"


def echoed(result: Result) -> tuple[list[str], list[str]]:
    """The arguments and texts that `ECHO` was given."""
    arguments, texts = json.loads(result.stderr.removeprefix("chorus: "))
    return arguments, texts


def test_defaults_of_the_measuring_program(unloadable: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replace_program(tmp_path, monkeypatch, ECHO)
    monkeypatch.setattr(check_precision, "detect_processor", lambda: Processor("New", frozenset({"avx512_bf16"})))
    arguments, texts = echoed(run("--engine", "turbo", "--model-dir", unloadable))
    assert texts == list(TEXTS)
    joined = " ".join(arguments)
    assert "--voice default --language en --seed 0" in joined
    assert "--precision fp32 --precision bf16" in joined
    assert "int8" not in joined
    assert "--recognise" in joined
    assert "--max-tokens" not in joined
    assert "--flow upstream" in joined
    assert "--flow-steps" not in joined


def test_options_reach_the_measuring_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replace_program(tmp_path, monkeypatch, ECHO)
    model = write(CHECKPOINTS["multilingual"], tmp_path / "several")
    texts = tmp_path / "texts.txt"
    texts.write_text("Trois.\n")
    monkeypatch.setenv("CHORUS_THREADS", "3")
    arguments, texts_sent = echoed(
        run(
            *("--engine", "multilingual", "--model-dir", str(model), "--language", "fr", "--seed", "7"),
            *("--text", "Un.", "--text", "Deux.", "--texts", str(texts), "--precision", "fp32", "--precision", "fp32"),
            *("--max-tokens", "40", "--no-recognise"),
        )
    )
    assert texts_sent == ["Un.", "Deux.", "Trois."]
    joined = " ".join(arguments)
    assert "--language fr --seed 7 --threads 3" in joined
    assert joined.count("--precision fp32") == 1
    assert "--max-tokens 40" in joined
    assert "--recognise" not in joined


def test_the_flow_reaches_the_measuring_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replace_program(tmp_path, monkeypatch, ECHO)
    model = str(write(CHECKPOINTS["chatterbox"], tmp_path / "own"))
    command = ("--engine", "chatterbox", "--model-dir", model)
    result = run(*command, "--flow", "meanflow")
    assert (result.exit_code, result.stderr) == (
        2,
        "chorus: meanflow's weights are not on this host; run: chorus models download meanflow\n",
    )
    result = run(*command, "--flow-steps", "2")
    assert result.stderr.startswith("chorus: the flow of engine chatterbox takes 4 to 10 steps, not 2;")
    write(MEANFLOW, tmp_path / "own")
    monkeypatch.setenv("CHORUS_FLOW_STEPS", "1")
    arguments, _ = echoed(run(*command, "--flow", "meanflow"))
    assert "--flow meanflow --flow-steps 1" in " ".join(arguments)


# Exit codes


@pytest.mark.parametrize(("fitness", "code"), [("equal", 0), ("close", 0), ("not recommended", 1)])
@pytest.mark.parametrize("options", [[], ["--json"]])
def test_the_exit_code_is_1_if_a_precision_is_not_recommended(
    fitness: str, code: int, options: list[str], unloadable: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace_program(tmp_path, monkeypatch, f"tell(report={made_up(fitness)!r})")
    result = run("--engine", "turbo", "--model-dir", unloadable, *options)
    assert (result.exit_code, result.stderr) == (code, "")
    if options:
        assert json.loads(result.stdout) == made_up(fitness)
    else:
        assert f"int8: {fitness}\n" in result.stdout


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("raise ValueError('out of luck')", "ended with 1:\n"),
        ("os.close(0); sys.exit('never read a text')", "ended with 1:\n  never read a text"),
        ("os.kill(os.getpid(), 9)", "ended with -9; the host may have run out of memory:"),
        ("tell(done=1, of=2, doing='half'); sys.exit(2)", "ended with 2:"),
    ],
)
def test_a_measuring_program_that_fails(
    code: str, message: str, unloadable: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace_program(tmp_path, monkeypatch, code)
    result = run("--engine", "turbo", "--model-dir", unloadable)
    assert result.exit_code == 3
    assert result.stderr.startswith(f"chorus: the measuring program {message}")
    assert ("out of luck" in result.stderr) is ("luck" in code)
    assert result.stdout == ""


def test_progress_is_shown_on_a_terminal(unloadable: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Console(file=io.StringIO(), force_terminal=True, width=100)
    monkeypatch.setattr(check_precision, "messages", terminal)
    replace_program(
        tmp_path, monkeypatch, f"tell(done=1, of=9, doing='upstream speaks text 1 of 4'); tell(report={made_up()!r})"
    )
    assert run("--engine", "turbo", "--model-dir", unloadable).exit_code == 0
    assert isinstance(terminal.file, io.StringIO)
    assert "upstream speaks text 1 of 4" in terminal.file.getvalue()


# The tables


def test_tables() -> None:
    output = shown(made_up())
    assert "turbo from /[models]/turbo, voice default, seed 0: 2 texts, 4.3 s of speech, 120 tokens, 40 of" in output
    listed = rows(output)
    assert listed["logits: maximum difference, relative to their range"] == ["1.7720%"]
    assert listed["next token: mean KL divergence, nats per step"] == ["0.002829"]
    assert listed["next token: same where upstream's choice is clear"] == ["100.00%"]
    assert listed["mel: mel-cepstral distance"] == ["0.12 dB"]
    assert listed["word error rate (upstream: 20.0%)"] == ["28.0%"]
    assert listed["verdict"] == ["close"]
    assert listed["[laugh] The ferry leaves at seven."] == [
        "int8",
        "0.002829",
        "92.16%",
        "0.12 dB",
        "119.23 dB",
        "7/25",
    ]
    assert output.endswith(
        "int8: close\n  mel-cepstral distance: 0.12 dB (at most 1.00 dB)\nNote: word error rates [say] little\n"
    )


def test_another_flow_is_named_with_the_speakers_similarity() -> None:
    output = shown(made_up("another rendering", speakerSimilarity=0.97) | {"flow": "meanflow of 1 step"})
    assert "flow: meanflow of 1 step, compared with upstream's own\n" in output
    assert rows(output)["speaker: similarity, by the model's voice encoder"] == ["0.970000"]
    assert "similarity" not in shown(made_up())


def test_figures_that_are_not_numbers() -> None:
    listed = rows(shown(made_up("not recommended", divergenceMean=None, melLargest=None, wordErrors=None)))
    assert listed["next token: mean KL divergence, nats per step"] == ["not a number"]
    assert listed["mel: maximum difference per band"] == ["not a number"]
    assert listed["word error rate (upstream: 20.0%)"] == ["no speech"]


def test_without_a_clear_choice_the_cell_is_empty() -> None:
    listed = rows(shown(made_up(clearSteps=0, clearAgreement=None)))
    assert listed["next token: same where upstream's choice is clear"] == [""]


def test_without_a_recogniser_there_are_no_word_errors() -> None:
    report = made_up(wordErrors=None) | {"stock": None}
    output = shown(report)
    assert "word error rate (" not in output
    assert "errors" not in output


def test_the_tables_fit_a_narrow_terminal() -> None:
    report = made_up()
    report["precisions"] *= 3
    tables = [line for line in shown(report, width=80).splitlines() if line[:1] in "│┃"]
    assert max(map(len, tables)) <= 80
    assert any("0.002829" in line and "7/25" in line for line in tables)


def test_help() -> None:
    result = run("--help")
    assert result.exit_code == 0
    assert "--model-dir" in result.stdout
