from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from kerneldyno.bench import journal, models, options
from kerneldyno.bench.models import ModelError
from kerneldyno.bench.plan import UsageError
from kerneldyno.kernels.registry import load


def dyno(*words: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "kerneldyno.bench", *map(str, words)]
    return subprocess.run(command, check=False, capture_output=True, text=True, cwd=cwd, timeout=300)


def test_the_first_a_middle_and_the_last_layer_or_those_that_are_named(small_models: Path) -> None:
    folder = small_models / "bert-small"

    def numbers(*words: str) -> tuple[int, ...]:
        found = models.chosen(folder, None, None, words)
        assert found is not None
        return found.layers

    assert numbers() == (0, 1, 2)
    assert numbers("-1", "0", "2") == (2, 0)
    for word in ("3", "-4", "x"):
        with pytest.raises(UsageError, match="--layers"):
            numbers(word)
    assert models.chosen(None, None, None, ()) is None
    with pytest.raises(UsageError, match="--layers goes with --model"):
        models.chosen(None, None, None, ("1",))


@pytest.mark.parametrize("name", ["bert-small", "llama-small", "vit-small"])
def test_problems_fit_the_operators_and_the_parts_of_the_layer(small_models: Path, name: str) -> None:
    found = models.chosen(small_models / name, None, None, ("1",))
    assert found is not None
    types = {kernel.operator: kernel.problem for kernel in load(declarations_only=False).values()}
    made = {operator: types[operator](**fields) for operator, fields in found.preset().problems}
    whole = made["layer"]
    assert made["feedforward"].fields() == {**whole.feedforward.fields(), "given": whole.given}
    assert made["attention"].fields() == {**whole.attention.fields(), "given": whole.given}
    assert whole.given.startswith(f"{name}/1@")
    assert made["attention"].q_len == found.source.config.usual_length


def test_a_configuration_alone_gives_shapes_and_says_so(small_models: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes((small_models / "bert-small" / "config.json").read_bytes())
    found = models.chosen(tmp_path, None, None, ())
    assert found is not None
    assert all("given" not in fields for _, fields in found.preset().problems)
    assert found.notes() == [
        f"{found.source.name} holds no weights in safetensors format: the shapes are the model's, weights and inputs are drawn at random"
    ]
    with pytest.raises(UsageError, match="through which inputs could go"):
        models.chosen(tmp_path, None, small_models / "bert-small.inputs.safetensors", ())


def test_files_that_do_not_belong_together_are_refused_in_a_sentence(small_models: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes((small_models / "bert-small" / "config.json").read_bytes())

    def refusal(**given: Path) -> str:
        with pytest.raises((ModelError, UsageError)) as caught:
            models.chosen(given.get("model", tmp_path), given.get("weights"), given.get("inputs"), ())
        assert str(tmp_path) not in str(caught.value)
        return str(caught.value)

    assert "hold no tensor 'encoder.layer.0.attention.self.query.weight'" in refusal(
        weights=small_models / "vit-small" / "model.safetensors"
    )
    assert "there is no such file" in refusal(weights=tmp_path / "none.safetensors")
    (tmp_path / "junk.safetensors").write_bytes(b"junk" * 9)
    assert "junk.safetensors cannot be read as safetensors" in refusal()
    (tmp_path / "more.safetensors").write_bytes(b"")
    assert "holds 2 safetensors files and no model.safetensors.index.json: name one with --weights" in refusal()
    wrong = refusal(model=small_models / "bert-small", inputs=small_models / "vit-small.inputs.safetensors")
    assert "holds no input_ids and no hidden_states" in wrong
    narrow = json.loads((tmp_path / "config.json").read_text()) | {"intermediate_size": 48}
    (tmp_path / "config.json").write_text(json.dumps(narrow))
    assert "has the shape [64, 32], config.json asks for [48, 32]: they do not belong together" in refusal(
        weights=small_models / "bert-small" / "model.safetensors"
    )


def test_codes_of_quantized_weights_are_no_weights(small_models: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    (tmp_path / "config.json").write_bytes((small_models / "bert-small" / "config.json").read_bytes())
    tensors = load_file(small_models / "bert-small" / "model.safetensors")
    save_file({name: tensor.to(torch.int8) for name, tensor in tensors.items()}, tmp_path / "model.safetensors")
    with pytest.raises(ModelError, match="holds I8 numbers: give weights that are not quantized"):
        models.chosen(tmp_path, None, None, ())


def test_names_are_those_that_were_given_and_never_an_account(small_models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bert").symlink_to(small_models / "bert-small")
    found = models.chosen(tmp_path / "bert", None, None, ())
    assert found is not None
    assert found.source.name == "bert"
    monkeypatch.setattr(Path, "home", lambda: small_models / "bert-small")
    found = models.chosen(None, small_models / "bert-small" / "model.safetensors", None, ())
    assert found is not None
    assert found.source.name == "model"


def test_a_run_of_early_layers_is_resumed_without_the_others() -> None:
    problems = [{"given": f"bert/{layer}@123456789abc"} for layer in (10, 2, 2)] + [{}]
    assert models.layers_of(SimpleNamespace(problem=problem) for problem in problems) == ("2", "10")


def test_an_index_that_names_what_is_not_there(small_models: Path, tmp_path: Path) -> None:
    for path in (small_models / "llama-small").iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    assert models.chosen(tmp_path, None, None, ()) is not None
    part = next(tmp_path.glob("model-00002-*"))
    part.unlink()
    with pytest.raises(ModelError, match=f"names {part.name}, which is not in the directory"):
        models.chosen(tmp_path, None, None, ())
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "../../etc/passwd"}}))
    with pytest.raises(ModelError, match="names passwd, which is not in the directory"):
        models.chosen(tmp_path, None, None, ())
    index.write_text(json.dumps({"weight_map": {"a": 1}}))
    with pytest.raises(ModelError, match="cannot be read: it must map tensors to files"):
        models.chosen(tmp_path, None, None, ())
    index.write_text("[]")
    with pytest.raises(ModelError, match="cannot be read: it must map tensors to files"):
        models.chosen(tmp_path, None, None, ())


def test_paths_of_a_model_stay_out_of_the_record() -> None:
    assert options.without_paths(["explain", "--json", "/a/b/c.json"]) == ["explain", "--json", "c.json"]
    words = ["run", "--model", "/a/b/bert", "--weights=/c/d.safetensors", "--inputs", "e/f.safetensors"]
    assert options.without_paths(words) == ["run", "--model", "bert", "--weights=d.safetensors", "--inputs", "f.safetensors"]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--set", "hidden_dim=8"), "--set hidden_dim does not go with --model: bert-small decides it"),
        (("--causal",), "--causal does not go with --model"),
        (("--preset", "smoke"), "--preset smoke does not go with --model"),
        (("--seq-len", "65"), "--seq-len 65 is more than the 64 tokens that bert-small takes"),
        (("--layers", "7"), "--layers 7: the model has 3 layers"),
    ],
)
def test_what_does_not_go_with_a_model_ends_with_2(small_models: Path, tmp_path: Path, words: tuple[str, ...], sentence: str) -> None:
    done = dyno("run", "--model", small_models / "bert-small", *words, cwd=tmp_path)
    assert done.returncode == 2
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_a_model_is_measured_with_its_own_weights_and_resumed_with_them_alone(small_models: Path, tmp_path: Path) -> None:
    kernels = ("--kernels", "eager,sdpa", "--energy", "off", "--protocol", "smoke", "--seq-len", "16", "--device", "cpu")
    run = dyno("run", "--model", small_models / "bert-small", "--layers", "1", *kernels, "--out", tmp_path / "run", cwd=tmp_path)
    assert run.returncode == 0, run.stdout + run.stderr
    stored = journal.read(tmp_path / "run")
    assert {case.operator for case in stored.manifest.cases} == {"attention", "feedforward", "layer"}
    assert all(case.label.endswith("fp32 bert-small layer 1") for case in stored.manifest.cases)
    assert all(found.status == "ok" for found in stored.measurements.values())
    told = b"".join(path.read_bytes() for path in (tmp_path / "run").iterdir() if path.suffix in (".json", ".jsonl", ".csv"))
    assert str(small_models).encode() not in told
    for words, sentence in (
        ((), "whose place is not recorded: give --model again"),
        (("--model", small_models / "vit-small"), "what --model and --inputs name now is not the same"),
    ):
        refused = dyno("run", "--resume", tmp_path / "run", *words, cwd=tmp_path)
        assert refused.returncode == 2
        assert sentence in refused.stderr
    again = dyno("run", "--resume", tmp_path / "run", "--model", small_models / "bert-small", cwd=tmp_path)
    assert again.returncode == 0, again.stdout + again.stderr
